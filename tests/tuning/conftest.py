"""Searches on the small feature table of the training tests."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.settings.pipeline import Settings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.tasks.task import Task
from mlspark.training.events import Event
from mlspark.training.spec import TrainingSpec
from mlspark.tuning import search as searches
from mlspark.tuning import trials
from mlspark.tuning.search import Search
from mlspark.tuning.study import TuneOptions
from mlspark.tuning.trials import Tuned

from ..conftest import census_settings
from ..training.conftest import TARGET_DTYPES, TASK, TENSORS, fit_here, write_snapshot

RATE = "training.optimizer.learning_rate"
SPACE = """\
training.optimizer.learning_rate: {choices: [2.0e-2, 1.0e-2, 1.0e-7]}
model.dropout: {low: 0.0, high: 0.3}
model.hidden: {choices: [[8], [16, 8]]}
"""


def train_here(spark: SparkSession, spec: TrainingSpec, on_event: Callable[[Event], None]) -> Any:
    """`learner.learn` without its processes: real training, as the only rank, in this process."""
    result = fit_here(spec, on_event=on_event)
    metrics = {name: Metrics.from_json(value) for name, value in result.metrics.items()}
    return SimpleNamespace(metrics=metrics, report={})


def tuning_settings(home: Path, *overrides: str) -> Settings:
    """A pipeline whose trials have one rank and three short epochs."""
    fast = ("training.num_processes=1", "training.epochs=3", "training.global_batch_size=256")
    # Its own store: MLflow puts the last one that was used into the environment, where it is the default.
    return census_settings(Path("unused"), home, f"tracking.uri=sqlite:///{home}/mlflow.db", *fast, *overrides)


def search_of(folder: Path, settings: Settings, text: str = SPACE) -> Search:
    file = folder / "search.yaml"
    file.write_text(text)
    return searches.load(str(file), settings)


def options_of(num_trials: int, *, task: Task = TASK, **options: Any) -> TuneOptions:
    metric = options.pop("metric", task.default_metric)
    is_minimized = task.lower_is_better(metric)
    return TuneOptions(
        **({"study": "small", "trials": num_trials, "metric": metric, "is_minimized": is_minimized} | options)
    )


def tune_here(
    spark: SparkSession,
    snapshot: Snapshot,
    home: Path,
    num_trials: int,
    *,
    space: str = SPACE,
    settings: Settings | None = None,
    task: Task = TASK,
    **options: Any,
) -> Tuned:
    settings = settings or tuning_settings(home)
    search = search_of(home, settings, space)
    asked = options_of(num_trials, task=task, **options)
    tensors = dataclasses.replace(TENSORS, target_dtype=TARGET_DTYPES[task.kind])
    return trials.tune(spark, settings, search, asked, tensors=tensors, task=task, snapshot=snapshot)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("tuning_features"))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials.learner, "learn", train_here)
