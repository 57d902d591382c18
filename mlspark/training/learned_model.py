"""What every learner returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlspark.tasks.metrics import Metrics


@dataclass(frozen=True)
class LearnedSnapshot:
    """The model as it was at the end of a cycle of the learning rate."""

    files: Mapping[str, bytes]
    """As those of a learned model, for the same engine."""
    predictions: Mapping[str, str]
    """Split -> URI of its rows' predictions."""


@dataclass(frozen=True)
class LearnedModel:
    """A trained model and how it came about."""

    files: Mapping[str, bytes]
    """The model's part of a version: model.json and what its engine needs besides."""
    engine: str
    """Engine that runs it: a key of `engines.engine.KINDS`."""
    metrics: Mapping[str, Metrics]
    """The task's metrics by split, validation and test; splits without rows are absent."""
    predictions: Mapping[str, str]
    """Split -> URI of its rows' predictions, for `evaluation.predictions.read`."""
    train_seconds: float
    """Time in training alone, without launch and evaluation."""
    report: Mapping[str, Any]
    """JSON values that people and schedulers want to know: steps, epochs, rounds, speed, ..."""
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    """Files to keep with the run besides, by name: curves, a trace."""
    snapshots: tuple[LearnedSnapshot, ...] = ()
    """Of a schedule of several cycles, in order."""
    epochs: Sequence[Mapping[str, Any]] = ()
    """JSON of what each epoch ended with; empty: it was not learned in epochs."""
