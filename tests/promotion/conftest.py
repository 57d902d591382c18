"""A registry with versions whose predictions are known row by row; no training, no Spark."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray
from safetensors import numpy as weight_files

from mlspark import storage
from mlspark.contracts.contract import Contract
from mlspark.evaluation import predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.settings.pipeline import Settings
from mlspark.tasks.task import Task
from mlspark.tracking import runs

from ..conftest import census_settings
from ..registry.conftest import kept_stores
from ..registry.example import ROW, package

NUM_ROWS = 400
TARGET = np.arange(NUM_ROWS) % 2
"""Half of the rows are of the event."""
EXAMPLE = {name: value for name, value in ROW.items() if isinstance(value, int | float | str | list | bool)} | {
    "day": "2024-02-29", "moment": "2024-02-29 18:30:01", "amount": "12.34",
}  # fmt: skip


def outputs(num_wrong: int) -> NDArray[np.float64]:
    """Outputs that are right but for the first rows, and a little different from row to row."""
    logits = np.where(TARGET == 1, 2.0, -2.0) + 0.001 * np.arange(NUM_ROWS)
    logits[:num_wrong] *= -1
    return logits[:, None]


@dataclass
class Registry:
    """A pipeline's registry."""

    home: Path
    settings: Settings
    client: MlflowClient
    always: tuple[str, ...]
    """Settings that it needs."""
    made: dict[int, str] = field(default_factory=dict)
    """Version -> its run."""

    @property
    def name(self) -> str:
        return self.settings.registry.model_name

    def set(self, *overrides: str) -> Settings:
        return census_settings(self.home, self.home, *self.always, *overrides)

    def add(
        self,
        num_wrong: int,
        *,
        row_id: NDArray[np.int64] | None = None,
        contract: Contract | None = None,
        task: Task | None = None,
        example: Mapping[str, Any] | None = None,
        same_weights: bool = False,
    ) -> int:
        """Register a version that is wrong on so many of the test rows, as a training does; return its number."""
        experiment = self.client.get_experiment_by_name(self.settings.tracking.experiment)
        run_id = str(self.client.create_run(experiment.experiment_id).info.run_id)
        base = package()
        weights = weight_files.load(base.files["weights.safetensors"])
        if not same_weights:
            weights = {name: values + np.float32(len(self.made) + 1) for name, values in weights.items()}
        ids = np.arange(NUM_ROWS) if row_id is None else row_id
        kept = Predictions.of(ids, TARGET.astype(float), outputs(num_wrong))
        uri = predictions.uri_of(storage.join(self.settings.root, "runs", run_id), "test")
        predictions.write(uri, kept)
        metrics = kept.metrics(base.task, intervals=False).to_json()
        made = Package.pack(
            model={"model.json": base.files["model.json"], "weights.safetensors": weight_files.save(weights)},
            encoder=base.encoder, contract=contract or base.contract, task=task or base.task,
            provenance={**base.provenance, "run_id": run_id, "metrics": {"test": json.loads(json.dumps(metrics))}},
        )  # fmt: skip
        number = versions.register(
            self.client, made, run_id=run_id, name=self.name, alias=self.settings.registry.alias, example=example
        )
        self.made[number] = run_id
        return number

    @property
    def aliases(self) -> dict[str, int]:
        [model] = self.client.search_registered_models(f"name = '{self.name}'")
        return {alias: int(version) for alias, version in model.aliases.items()}

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.client.get_model_version(self.name, str(version)).tags)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's store; its making takes longer than a test."""
    home = tmp_path_factory.mktemp("store")
    with kept_stores():
        runs.connect(census_settings(home, home).tracking, str(home))
        yield runs.embedded_uri(str(home))


_numbers = itertools.count(1)


@pytest.fixture
def registry(store: str, tmp_path: Path) -> Registry:
    """An empty registry, with folders of its own."""
    return new_registry(store, tmp_path)


def new_registry(store: str, folder: Path) -> Registry:
    always = (f"name=example{next(_numbers)}", f"tracking.uri={store}")
    settings = census_settings(folder, folder, *always)
    return Registry(folder, settings, runs.connect(settings.tracking, settings.root), always)
