"""A registry of its own for each test module."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import pytest
from mlflow import MlflowClient

from mlspark.registry import versions
from mlspark.tracking import runs
from mlspark.tracking.settings import TrackingSettings

from .example import package


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with kept_stores():
        yield runs.connect(TrackingSettings(experiment="example"), str(tmp_path_factory.mktemp("home")))


@contextmanager
def kept_stores() -> Iterator[None]:
    """Leave MLflow's default stores as they were, and the variable that it copies them to."""
    tracking, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable


def new_run(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("example")
    return str(client.create_run(experiment.experiment_id).info.run_id)


@pytest.fixture(scope="module")
def example_uri(client: MlflowClient) -> str:
    """The registered example: models:/example/1."""
    version = versions.register(client, package(), run_id=new_run(client), name="example", alias="champion")
    return f"models:/example/{version}"
