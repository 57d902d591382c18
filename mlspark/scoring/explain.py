"""What each raw column of a row adds to its prediction. Runs anywhere; needs no Spark.

The predictions are `Predictor.judge`'s. What is explained is one number of each row: the log odds of the event; with several
classes the logit of the predicted class less that of the next; of a number the prediction itself, on the scale on which the
model's outputs are linear in it. Contributions of features are added up by the raw columns that they are made of.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.contracts.check_json import Row
from mlspark.engines import engine
from mlspark.evaluation import attribution, examined_rows
from mlspark.evaluation.attribution import SHAP, STEPS, Contributions, HeatMap
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encoder import Encoder
from mlspark.features.raw_columns import inputs_of
from mlspark.features.tensors import Tensors
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor, Verdicts
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.intervals import Floats
from mlspark.tasks.losses import key_text
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task, outputs_of

_MORE_STEPS = (256, 1024)
"""Points of a network's path, one after the other, for rows whose contributions do not add up with fewer."""
_TOLERANCE = 0.01
"""Completeness error, as a share of all that is added to either side, up to which the steps are enough."""
_ROWS, _PICTURES = 1024, 64
"""Rows that are explained at once."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Explanation:
    """What each raw column adds to the explained number of g rows."""

    method: str
    numbers: tuple[str, ...]
    """(g,): the explained number of each row, in words: "log odds of >50K"."""
    columns: tuple[tuple[str, ...], ...]
    """Raw columns, each alone; then those that features are made of together."""
    values: Floats
    """(g, columns)."""
    start: Floats
    """(g,): the baseline, the explained number where no column adds anything."""
    output: Floats
    """(g,): the explained number."""
    steps: NDArray[np.int64]
    """(g,): points of the path of integrated gradients; of trees 0."""
    pictures: Mapping[str, NDArray[np.uint8]]
    """Picture -> pixels as the model reads them, of the first rows, as many as were asked for (m, C, H, W)."""
    maps: Mapping[str, HeatMap]
    """Picture -> where in it the number comes from, of the same rows."""

    @property
    def error(self) -> Floats:
        """(g,): completeness error, baseline and all contributions less the explained number."""
        return np.asarray(self.start + self.values.sum(axis=1) - self.output)


class Explainer:
    """A model version ready to score, and to say why."""

    def __init__(self, package: Package, reference: Arrays, *, allow_decoder: bool = False, threads: int = 0) -> None:
        """Load the engine.

        Args:
            package: the version's files.
            reference: tensors of other rows, at whose mean the way to a row begins; {} where `needs_reference` says so.
            allow_decoder: see `Predictor`.
            threads: see `Predictor`.

        Raises:
            RegistryError: see `Predictor`.
        """
        self.predictor = Predictor(package, allow_decoder=allow_decoder, threads=threads)
        self._task, self._reference = package.task, reference
        self._encoder = ArrowEncoder(package.encoder)
        self._engine = engine.load_source(package.files, threads=threads)
        tensors = Tensors.from_json(json.loads(package.files["model.json"])["tensors"])
        self._pictures = tuple(tensors.pictures)
        self._columns, self._sums = raw_columns(package.encoder, tensors)

    def explain(self, rows: pa.Table | Sequence[Row], *, num_maps: int = 0) -> tuple[Verdicts, Explanation]:
        """Return what is said of n rows, and of those that are predicted, why.

        Args:
            rows: see `Predictor.judge`.
            num_maps: rows whose pictures and maps are wanted, the first ones.

        Raises:
            ContractError: see `Predictor.judge`.
            AttributionError: the engine or its network cannot be explained; says why.
        """
        verdicts = self.predictor.judge(rows)
        good = verdicts.rows.take(pa.array(verdicts.good, pa.int64()))
        at_once = self._at_once
        parts = [
            self._explained(self._encoder.transform(good.slice(first, at_once)), max(0, num_maps - first))
            for first in range(0, good.num_rows, at_once)
        ]
        return verdicts, _joined(parts, self._columns)

    def explain_encoded(self, tensors: Arrays) -> Explanation:
        """Return why n rows that are good and encoded are predicted as they are; tensors by name, each (n, ...).

        Raises:
            AttributionError: see `explain`.
        """
        num_rows, at_once = len(next(iter(tensors.values()))), self._at_once
        pieces = (slice(first, first + at_once) for first in range(0, num_rows, at_once))
        parts = [self._explained({name: each[piece] for name, each in tensors.items()}, 0) for piece in pieces]
        return _joined(parts, self._columns)

    @property
    def _at_once(self) -> int:
        return _PICTURES if self._pictures else _ROWS

    def _explained(self, tensors: Arrays, num_maps: int) -> Explanation:
        outputs = outputs_of(self._task, self._engine.run(tensors))
        # Held against the next class: which is true is not known.
        factors = attribution.explained(self._task, outputs, outputs.argmax(axis=1))
        parts, steps = self._contributions(tensors, factors)
        factor, shift = _unit(self._task)
        first = {name: each[:num_maps] for name, each in tensors.items()}
        return Explanation(
            parts.method,
            _numbers(self._task, factors),
            self._columns,
            parts.values @ self._sums * factor,
            parts.start * factor + shift,
            (factors * outputs).sum(axis=1) * factor + shift,
            steps,
            {name: first[name] for name in self._pictures},
            self._maps(first, factors[:num_maps], parts) if num_maps else {},
        )

    def _contributions(self, tensors: Arrays, factors: Floats) -> tuple[Contributions, NDArray[np.int64]]:
        """Return what columns add, and the steps that each row took: more for rows that do not add up."""
        parts = attribution.contributions(self._engine, tensors, factors, reference=self._reference)
        if parts.method == SHAP:
            return parts, np.zeros(len(factors), np.int64)
        steps = np.full(len(factors), STEPS, np.int64)
        for more in () if self._pictures else _MORE_STEPS:
            gap = np.abs(parts.start + parts.values.sum(axis=1) - parts.output)
            rows = np.flatnonzero(gap > _TOLERANCE * np.abs(parts.values).sum(axis=1))
            if not len(rows):
                break
            some = {name: each[rows] for name, each in tensors.items()}
            again = attribution.contributions(self._engine, some, factors[rows], reference=self._reference, steps=more)
            parts.values[rows], steps[rows] = again.values, more
        return parts, steps

    def _maps(self, tensors: Arrays, factors: Floats, parts: Contributions) -> dict[str, HeatMap]:
        maps = attribution.heat_maps(self._engine, tensors, factors)
        others = (name for name in self._pictures if name not in maps)
        return maps | {name: examined_rows.spread(parts.pixels[name][: len(factors)]) for name in others}


def needs_reference(package: Package) -> bool:
    """Return whether contributions begin at other rows, as those of networks do; those of trees do not."""
    return any(json.loads(files["model.json"])["engine"] == "eager" for files in engine.models(package.files))


def raw_columns(encoder: Encoder, tensors: Tensors) -> tuple[tuple[tuple[str, ...], ...], Floats]:
    """Return the raw columns that a model's inputs are made of, and what belongs to which.

    A feature that is made of several columns belongs to them together: what each of them adds in it cannot be told.

    Args:
        encoder: of the version.
        tensors: that the model reads.

    Returns:
        columns: each alone in the encoder's order, then those that stand together.
        sums: (inputs, columns): 1 where an input, in the order of `Contributions.columns`, is made of these columns.
    """
    inputs = [each.columns for each in inputs_of(encoder, tensors)]
    alone = [(name,) for name in encoder.inputs if (name,) in inputs]
    columns = (*alone, *dict.fromkeys(names for names in inputs if len(names) > 1))
    return columns, np.array([[float(names == each) for each in columns] for names in inputs]).reshape(-1, len(columns))


def _joined(parts: Sequence[Explanation], columns: tuple[tuple[str, ...], ...]) -> Explanation:
    """Return explanations of the same version as one."""
    if not parts:
        none = np.zeros(0)
        return Explanation("", (), columns, np.zeros((0, len(columns))), none, none, np.zeros(0, np.int64), {}, {})
    first, with_maps = parts[0], [part for part in parts if part.maps]
    return Explanation(
        first.method,
        tuple(number for part in parts for number in part.numbers),
        columns,
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.output for part in parts]),
        np.concatenate([part.steps for part in parts]),
        {name: np.concatenate([part.pictures[name] for part in parts]) for name in first.pictures},
        {
            name: HeatMap(heat.method, np.concatenate([part.maps[name].values for part in with_maps]))
            for name, heat in first.maps.items()
        },
    )


def _numbers(task: Task, factors: Floats) -> tuple[str, ...]:
    """Return what the explained number of each row is, in words."""
    if isinstance(task, BinaryTask):
        return (f"log odds of {key_text(task.event_class)}",) * len(factors)
    if isinstance(task, ClassTask):
        names = [key_text(value) for value in task.known_classes]
        pairs = zip(factors.argmax(axis=1), factors.argmin(axis=1), strict=True)
        return tuple(f"logit of {names[first]} less that of {names[second]}" for first, second in pairs)
    is_log = isinstance(task, RegressionTask) and task.transform == "log1p"
    return (f"log(1 + {task.target})" if is_log else task.target,) * len(factors)


def _unit(task: Task) -> tuple[float, float]:
    """Return factor and shift by which outputs become numbers on the scale of the target, or of its logarithm."""
    if isinstance(task, RegressionTask) and task.standardise:
        assert task.center is not None, "the task is resolved"
        assert task.scale is not None, "the task is resolved"
        return task.scale, task.center
    return 1.0, 0.0
