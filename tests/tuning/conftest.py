"""Searches on the small feature table of the training tests."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.config import Settings
from mlspark.streaming.snapshot import Snapshot
from mlspark.training.metrics import BinaryMetrics
from mlspark.training.spec import TrainingSpec
from mlspark.tuning import search as searches
from mlspark.tuning import trials
from mlspark.tuning.search import Search
from mlspark.tuning.study import TuneOptions
from mlspark.tuning.trials import Tuned

from ..conftest import census_settings
from ..training.conftest import LAYOUT, fit_here, write_snapshot

RATE = "training.optimizer.learning_rate"
SPACE = """\
training.optimizer.learning_rate: {choices: [2.0e-2, 1.0e-2, 1.0e-7]}
model.dropout: {low: 0.0, high: 0.3}
model.hidden: {choices: [[8], [16, 8]]}
"""


def train_here(spark: SparkSession, spec: TrainingSpec, on_event: Callable[[dict[str, Any]], None]) -> Any:
    """`launcher.launch` without its processes: real training, as the only rank, in this process."""
    result = fit_here(spec, on_event=lambda event: on_event(dict(event)))
    return SimpleNamespace(metrics={name: BinaryMetrics.from_json(value) for name, value in result.metrics.items()})


def tuning_settings(home: Path, *overrides: str) -> Settings:
    """A pipeline whose trials have one rank and three short epochs."""
    fast = ("training.num_processes=1", "training.epochs=3", "training.global_batch_size=256")
    # Its own store: MLflow puts the last one that was used into the environment, where it is the default.
    return census_settings(Path("unused"), home, f"tracking.uri=sqlite:///{home}/mlflow.db", *fast, *overrides)


def search_of(folder: Path, settings: Settings, text: str = SPACE) -> Search:
    file = folder / "search.yaml"
    file.write_text(text)
    return searches.load(str(file), settings)


def tune_here(
    spark: SparkSession, snapshot: Snapshot, home: Path, num_trials: int, *, space: str = SPACE, **options: Any
) -> Tuned:
    settings = tuning_settings(home)
    search = search_of(home, settings, space)
    asked = TuneOptions(**({"study": "small", "trials": num_trials} | options))
    return trials.tune(spark, settings, search, asked, layout=LAYOUT, snapshot=snapshot)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return write_snapshot(tmp_path_factory.mktemp("tuning_features"))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials.launcher, "launch", train_here)
