"""A trained network run by other engines: how far off their outputs are, what they lose, how fast they are. Driver.

Of an ensemble each network among its members is, and what counts is the outputs of all combined. Nothing is written: what is
tried may be refused.
"""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines import engine, ensemble, pieces
from mlspark.engines.agreement import TOLERANCE, difference
from mlspark.engines.candidates import CANDIDATES, Candidate, Source
from mlspark.engines.eager import Eager
from mlspark.engines.engine import Engine
from mlspark.engines.ensemble import Ensemble
from mlspark.errors import ConfigError, RegistryError, one_line
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.task import Task
from mlspark.training import held_out
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

EAGER = "eager"
_CALIBRATION_PICTURES, _CALIBRATION_ROWS = 512, 8192
_ROUNDS, _ROUND_SECONDS = 7, 0.15

Arrays = dict[str, NDArray[Any]]


@dataclass
class Trial:
    """What came of an engine."""

    name: str
    """A key of `candidates.CANDIDATES`, or eager."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The engine's, to stand beside the network's."""
    refusal: str = ""
    """Why it is not used; empty where it may be."""
    difference: float | None = None
    """Greatest difference of an output from eager's, see `agreement.difference`."""
    metric: float | None = None
    """The metric of the validation rows."""
    loss: float | None = None
    """What the metric is worse by than eager's: of rates the difference, of numbers the share."""
    rows_per_second: float | None = None
    seconds: float = 0.0
    """Time that exporting and loading took."""

    def to_json(self) -> dict[str, Any]:
        """Return all but the files."""
        return {name: value for name, value in vars(self).items() if name not in ("files", "name")}


def metric_of(task: Task) -> str:
    """Return the metric by which engines are compared: accuracy of classes, else the task's own."""
    return "accuracy" if isinstance(task, ClassTask) else task.default_metric


@dataclass(frozen=True)
class Choice:
    """How an engine is chosen."""

    max_loss: float = 0.005
    """Most that the metric of the validation rows may be worse by: accuracy of classes; of numbers the task's own metric, as
    a share of it."""
    batch_rows: int = 0
    """Rows at a time when the speed is measured, of the validation rows; 0: 64 with pictures, else 4,096."""
    threads: int = 1
    """Threads that each engine computes with."""
    engine: str = ""
    """A key of `candidates.CANDIDATES`: that one, whatever its speed; empty: the fastest of all."""

    def check(self) -> None:
        """Raise ConfigError where no engine has that name."""
        if self.engine and self.engine not in CANDIDATES:
            raise ConfigError(f"engine {self.engine}: there is none; choose one of {', '.join(CANDIDATES)}")

    def of(self, trials: Sequence[Trial]) -> Trial:
        """Return the trial that is kept: of the engine that is named, else of the fastest, eager where none is faster.

        Raises:
            RegistryError: the engine that is named is refused.
        """
        if not self.engine:
            return max((trial for trial in trials if not trial.refusal), key=lambda trial: trial.rows_per_second or 0.0)
        if trials[-1].refusal:
            raise RegistryError(f"engine {self.engine} is refused: {trials[-1].refusal}")
        return trials[-1]


def run(spec: TrainingSpec, splits: Mapping[str, Snapshot], files: Mapping[str, bytes], choice: Choice) -> list[Trial]:
    """Return a trial of eager, then of each candidate.

    Args:
        spec: tensors and task of the model.
        splits: train, of which rows calibrate int8, and validation, at least one row each.
        files: of a network, or of an ensemble with one, as it was trained.
        choice: what is tried, and how it is judged.
    """
    as_trained = engine.load(files, threads=choice.threads)
    sources = _sources(files, as_trained, _calibration(spec, splits["train"]))
    trials = [Trial(EAGER)]
    engines: dict[str, Engine] = {EAGER: as_trained}
    for name, candidate in CANDIDATES.items():
        if choice.engine not in ("", name):
            continue
        trial = Trial(name, refusal=candidate.obstacle())
        trials.append(trial)
        if trial.refusal:
            continue
        started = time.monotonic()
        try:
            trial.files = _packed(candidate, sources)
            engines[name] = engine.load({**files, **trial.files}, threads=choice.threads)
        except RegistryError as error:
            trial.refusal = one_line(str(error))
        trial.seconds = round(time.monotonic() - started, 3)
        logger.info("optimize: %s %s in %.1f s", name, "is refused" if trial.refusal else "is made", trial.seconds)
    logger.info(
        "optimize: %s validation rows are run by %d engines", f"{splits['validation'].num_rows:,}", len(engines)
    )
    rows = _evaluate(spec, splits["validation"], trials, engines)
    _judge(spec.task, trials, choice.max_loss)
    timed = {trial.name: engines[trial.name] for trial in trials if not trial.refusal}
    for name, rate in _speeds(timed, _repeated(rows, choice.batch_rows or pieces.rows_at_once(spec.tensors))).items():
        next(trial for trial in trials if trial.name == name).rows_per_second = rate
    return trials


def _sources(files: Mapping[str, bytes], as_trained: Engine, calibration: Sequence[Arrays]) -> dict[str, Source]:
    """Return each network by the member's name, "" where the model is one itself; all are calibrated by the same rows."""
    if isinstance(as_trained, Eager):
        return {"": Source(as_trained, calibration)}
    assert isinstance(as_trained, Ensemble), type(as_trained)
    names = (name for name, _ in ensemble.members(files))
    return {
        name: Source(member, calibration)
        for name, member in zip(names, as_trained.engines, strict=True)
        if isinstance(member, Eager)
    }


def _packed(candidate: Candidate, sources: Mapping[str, Source]) -> dict[str, bytes]:
    """Return the files of an engine, for each network in its member's folder.

    Raises:
        RegistryError: a network cannot be exported; names the member.
    """
    files: dict[str, bytes] = {}
    for name, source in sources.items():
        try:
            of_network = candidate.pack(source)
        except RegistryError as error:
            if not name:
                raise
            raise RegistryError(f"member {name}: {error}") from error
        files |= ensemble.placed(name, of_network) if name else of_network
    return files


def _calibration(spec: TrainingSpec, train: Snapshot) -> list[Arrays]:
    """Return batches of training rows, the same each time: of a shuffled order that depends on the table alone."""
    at_once = pieces.rows_at_once(spec.tensors)
    wanted = _CALIBRATION_PICTURES if spec.tensors.pictures else _CALIBRATION_ROWS
    batches: list[Arrays] = []
    with open_feature_table(
        train, spec.tensors, StreamingSettings(remainder="keep", lanes=1, workers=1, pool="thread"),
        rank=0, world_size=1, global_batch_size=min(at_once, train.num_rows), seed=0,
    ) as stream:  # fmt: skip
        for batch in stream:
            batches.append({name: tensor.numpy().copy() for name, tensor in spec.tensors.pick(batch).items()})
            if sum(len(next(iter(each.values()))) for each in batches) >= wanted:
                break
    return batches


def _evaluate(
    spec: TrainingSpec, validation: Snapshot, trials: Sequence[Trial], engines: Mapping[str, Engine]
) -> Arrays:
    """Set difference and metric of each trial; return some of the rows."""
    outputs: dict[str, list[NDArray[Any]]] = {name: [] for name in engines}
    others: dict[str, list[NDArray[Any]]] = {"target": [], "weight": []}
    some: Arrays = {}
    for batch in held_out.batches(spec, validation):
        values = spec.tensors.pick(batch)
        some = some or {name: value.copy() for name, value in values.items()}
        for name, of in engines.items():
            outputs[name].append(of.run(values))
        for column, parts in others.items():
            if column in batch:
                parts.append(batch[column])
    target = np.concatenate(others["target"])
    weight = np.concatenate(others["weight"]) if others["weight"] else None
    whole = {name: np.concatenate(parts) for name, parts in outputs.items()}
    for trial in trials:
        if trial.name not in whole:
            continue
        of_engine = whole[trial.name]
        trial.difference = difference(of_engine, whole[EAGER])
        if np.isfinite(of_engine).all():
            metrics = spec.task.metrics(of_engine, target, weight, intervals=False)
            trial.metric = metrics[metric_of(spec.task)]
    return some


def _judge(task: Task, trials: Sequence[Trial], max_loss: float) -> None:
    """Refuse what differs, or loses too much."""
    name, reference = metric_of(task), trials[0].metric
    for trial in trials[1:]:
        if trial.refusal:
            continue
        assert trial.difference is not None
        if not np.isfinite(trial.difference):
            trial.refusal = "an output is not finite"
            continue
        if CANDIDATES[trial.name].is_exact and trial.difference > TOLERANCE:
            trial.refusal = f"an output differs from eager's by {trial.difference:.2g}, more than {TOLERANCE:g}"
        if trial.metric is None or reference is None:
            trial.refusal = trial.refusal or f"{name} of the validation rows is not defined"
            continue
        trial.loss = trial.metric - reference if task.lower_is_better(name) else reference - trial.metric
        if not isinstance(task, ClassTask):
            trial.loss /= abs(reference) or 1.0
        if not trial.refusal and trial.loss > max_loss:
            trial.refusal = (
                f"{name} is {trial.metric:.4f} beside {reference:.4f}: {trial.loss:.4f} worse, over {max_loss:g}"
            )


def _repeated(rows: Arrays, count: int) -> Arrays:
    return {name: np.take(value, np.arange(count) % len(value), axis=0) for name, value in rows.items()}


def _speeds(engines: Mapping[str, Engine], rows: Arrays) -> dict[str, float]:
    """Return the median rows/s of rounds in which all take turns, so that a busy moment of the machine meets all of them."""
    num_rows, rates = len(next(iter(rows.values()))), {name: list[float]() for name in engines}
    for of in engines.values():
        of.run(rows)
    for number in range(_ROUNDS):
        for name, of in list(engines.items())[:: -1 if number % 2 else 1]:
            started, times = time.perf_counter(), 0
            while not times or time.perf_counter() - started < _ROUND_SECONDS:
                of.run(rows)
                times += 1
            rates[name].append(num_rows * times / (time.perf_counter() - started))
    return {name: round(statistics.median(of_engine), 1) for name, of_engine in rates.items()}
