"""How far two versions are apart on the same rows, and whether by more than chance. Runs anywhere; no Spark, no MLflow.

Intervals of differences are percentiles of a paired bootstrap: each resample takes the same rows of both versions. Beside
them stand the tests that need no resampling: McNemar's for accuracy, DeLong's for the area under the ROC curve, Student's
paired t and Wilcoxon's signed ranks for losses.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mlspark.errors import ConfigError
from mlspark.evaluation import paired_bootstrap
from mlspark.evaluation.delong import DeLong, delong
from mlspark.evaluation.mcnemar import McNemar, mcnemar
from mlspark.evaluation.paired_losses import PairedLosses, paired_losses
from mlspark.evaluation.paired_rows import ComparisonError, check_tasks, counting, same_rows
from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.resampled_metrics import by_weight
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.intervals import Floats
from mlspark.tasks.judgement import classified
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task, outputs_of

RESAMPLES = 2000
SEED = 20_261_128
BOOTSTRAP, MCNEMAR, DELONG, PAIRED_T = "paired bootstrap", "exact McNemar", "DeLong", "paired t"

Pair = tuple[Predictions, Predictions]
Tasks = tuple[Task, Task]


@dataclass(frozen=True)
class Difference:
    """How far a metric of two versions is apart."""

    a: float | None
    """Value of the first version, the champion; None where it is not defined."""
    b: float | None
    """Value of the second version, the challenger."""
    difference: float | None
    """b less a."""
    low: float | None
    """Lower end of the difference's interval; None where it is not defined, or takes too long: areas of many classes."""
    high: float | None
    p_value: float | None
    """Probability of a difference as large as this, were there none."""
    test: str
    """What the p value is of; empty without one."""
    lower_is_better: bool

    @property
    def better(self) -> Literal["a", "b", ""]:
        """The version that is better by more than chance: the interval leaves out 0; empty: neither."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return ""
        return "b" if (self.low > 0) != self.lower_is_better else "a"


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same rows."""

    num_rows: int
    """Rows that count: those of a weight above 0."""
    confidence: float
    resamples: int
    seed: int
    differences: Mapping[str, Difference]
    """By metric, in the order of the task's metrics."""
    mcnemar: McNemar | None = None
    """Which version is right more often; None for numbers, and where rows have different sample weights."""
    delong: DeLong | None = None
    """Of two classes; None otherwise, and where rows have different sample weights."""
    losses: Mapping[str, PairedLosses] = field(default_factory=dict)
    """By metric that is a mean of losses, for rmse of the squared error; empty where rows have different weights."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        with_verdicts = {
            name: asdict(difference) | {"better": difference.better} for name, difference in self.differences.items()
        }
        return asdict(self) | {"differences": with_verdicts}


def compare(
    task: Task,
    champion: Predictions,
    challenger: Predictions,
    *,
    challenger_task: Task | None = None,
    names: tuple[str, str] = ("champion", "challenger"),
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Return how far two versions are apart on the rows that both predicted.

    Tests other than the bootstrap count rows once each: where rows have different sample weights there are none, and all
    p values are the bootstrap's.

    Args:
        task: of the first version, resolved.
        champion: predictions of the first version.
        challenger: predictions of the second version; in any order, of the same rows.
        challenger_task: of the second version, where it is another: another threshold, transform or loss.
        names: of both, for messages.
        confidence: of all intervals.
        resamples: of the bootstrap.
        seed: of the resamples; equal seeds give equal figures.

    Raises:
        ComparisonError: the rows differ, or what is predicted does; says which and how many.
        ConfigError: confidence or resamples out of range.
    """
    check_range(confidence, resamples)
    tasks = (task, challenger_task or task)
    check_tasks(*tasks, names=names)
    one, other = same_rows(champion, challenger, names=names)
    pair = counting(one), counting(other)
    if not len(pair[0]):
        raise ComparisonError(f"{names[0]}, {names[1]}: all rows weigh 0; correct the column that task.weight names")
    weight = np.ones(len(pair[0])) if pair[0].weight is None else pair[0].weight
    statistics = tuple(by_weight(of, rows.outputs, rows.target) for of, rows in zip(tasks, pair, strict=True))
    first, second = paired_bootstrap.resampled_values(statistics, weight, resamples=resamples, seed=seed)
    tests = _tests(tasks, pair, confidence) if (weight == weight[0]).all() else _Tests()
    values = [rows.metrics(of, intervals=False) for of, rows in zip(tasks, pair, strict=True)]
    differences = {}
    for name in shared_metrics(*tasks):
        resampled = second[name] - first[name] if name in first else None
        pair_of_values = values[0][name], values[1][name]
        differences[name] = _difference(name, pair_of_values, resampled, tests, confidence, task.lower_is_better(name))
    return Comparison(
        len(weight), confidence, resamples, seed, differences, tests.mcnemar, tests.delong, tests.losses
    )  # fmt: skip


def shared_metrics(first: Task, second: Task) -> tuple[str, ...]:
    """Return the metrics that mean the same of both: what depends on quantiles is left out where these differ."""
    quantiles = [getattr(task.loss, "quantiles", ()) for task in (first, second) if isinstance(task, RegressionTask)]
    left_out = ("pinball", "coverage") if len(set(quantiles)) > 1 else ()
    return tuple(name for name in first.metric_names if name in second.metric_names and name not in left_out)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p values of several comparisons, adjusted (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    What is below 0.05 afterwards are differences of which, with a probability of 95 %, none is by chance. None stays, and
    counts for none.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    known = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    least = 0.0
    for rank, (value, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * value))
        adjusted[place] = least
    return adjusted


@dataclass(frozen=True)
class _Tests:
    """Tests of two versions other than the bootstrap."""

    mcnemar: McNemar | None = None
    delong: DeLong | None = None
    losses: Mapping[str, PairedLosses] = field(default_factory=dict)

    def of(self, name: str) -> tuple[float, str] | None:
        """Return the p value of a metric's difference and what it is of."""
        if name == "accuracy" and self.mcnemar is not None:
            return self.mcnemar.p_value, MCNEMAR
        if name == "roc_auc" and self.delong is not None:
            return self.delong.p_value, DELONG
        return (self.losses[name].p_value, PAIRED_T) if name in self.losses else None


def _tests(tasks: Tasks, pair: Pair, confidence: float) -> _Tests:
    right = [task.is_right(rows.outputs, rows.target) for task, rows in zip(tasks, pair, strict=True)]
    found = None if right[0] is None or right[1] is None else mcnemar(right[0], right[1])
    areas = None
    if isinstance(tasks[0], BinaryTask):
        scores = [outputs_of(task, rows.outputs)[:, 0] for task, rows in zip(tasks, pair, strict=True)]
        areas = delong(scores[0], scores[1], pair[0].target > 0.5, confidence=confidence)
    first, second = (_losses(task, rows) for task, rows in zip(tasks, pair, strict=True))
    tested = {name: paired_losses(first[name], second[name], confidence=confidence) for name in first}
    shared = shared_metrics(*tasks)
    return _Tests(found, areas, {name: each for name, each in tested.items() if each is not None and name in shared})


def _losses(task: Task, rows: Predictions) -> dict[str, Floats]:
    """Return the losses of each row that metrics are means of."""
    if isinstance(task, ClassTask):
        return {"log_loss": classified(task, rows.outputs, rows.target, None).loss}
    assert isinstance(task, RegressionTask), task
    losses = task.row_losses(rows.outputs, rows.target)
    return {name: values for name, values in losses.items() if name != "coverage"}


def _difference(
    name: str,
    values: tuple[float | None, float | None],
    resampled: Floats | None,
    tests: _Tests,
    confidence: float,
    lower_is_better: bool,
) -> Difference:
    a, b = values
    if a is None or b is None:
        return Difference(a, b, None, None, None, None, "", lower_is_better)
    limits, tested = None, tests.of(name)
    if resampled is not None:
        if name == "calibration_error":
            # That of a resample is larger than that of the rows, by much where the model is well calibrated.
            resampled = resampled - (np.nanmean(resampled) - (b - a))
        limits = paired_bootstrap.interval(resampled, confidence=confidence)
        if tested is None and (by_bootstrap := paired_bootstrap.p_value(resampled)) is not None:
            tested = by_bootstrap, BOOTSTRAP
    low, high = limits or (None, None)
    p_value, test = tested or (None, "")
    return Difference(a, b, b - a, low, high, p_value, test, lower_is_better)


def check_range(confidence: float, resamples: int) -> None:
    """Raise ConfigError where one is out of range."""
    if not 0.5 <= confidence < 1 or not math.isfinite(confidence):
        raise ConfigError(f"confidence {confidence:g}: expected from 0.5 to below 1, like 0.95")
    if not 100 <= resamples <= 1_000_000:
        raise ConfigError(f"resamples {resamples}: expected from 100 to 1,000,000")
