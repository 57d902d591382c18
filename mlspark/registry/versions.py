"""Model versions in MLflow: registered whole, found by number or alias. Driver only."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from mlspark.contracts.contract import Contract
from mlspark.errors import RegistryError
from mlspark.registry.bundle import Bundle


@dataclass(frozen=True)
class ModelVersion:
    """A registered version, found."""

    name: str
    version: int
    bundle: Bundle


def register(client: MlflowClient, bundle: Bundle, *, run_id: str, name: str, alias: str) -> int:
    """Log `bundle` as a model of the active run, register it and return its version number.

    The alias moves last, so it never points to a version that is not complete. An empty alias moves nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(Path(folder) / "bundle")
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("serving_model.py")),
            artifacts={"bundle": str(Path(folder) / "bundle")},
            signature=_signature(bundle.contract),
            pip_requirements=["mlspark"],
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {key: str(value) for key, value in bundle.provenance.items() if isinstance(value, str | int)}
    version = client.create_model_version(name, logged.model_uri, run_id=run_id, model_id=logged.model_id, tags=tags)
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    return int(version.version)


def find(client: MlflowClient, name: str, wanted: int | str) -> ModelVersion:
    """Return the version with number or alias `wanted`.

    Raises:
        RegistryError: no such model, version or alias; names those that there are.
    """
    try:
        if isinstance(wanted, int):
            found = client.get_model_version(name, str(wanted))
        else:
            found = client.get_model_version_by_alias(name, wanted)
    except MlflowException as error:
        known = client.search_registered_models(f"name = '{name}'")
        if not known:
            names = ", ".join(sorted(model.name for model in client.search_registered_models())) or "none"
            raise RegistryError(
                f"model {name}: not registered (registered: {names}); run jobs/train.py first or check registry.model_name"
            ) from error
        numbers = sorted(int(version.version) for version in client.search_model_versions(f"name = '{name}'"))
        aliases = ", ".join(sorted(known[0].aliases)) or "none"
        raise RegistryError(
            f"model {name}: no version or alias {wanted!r} (versions: {', '.join(map(str, numbers)) or 'none'}; "
            f"aliases: {aliases}); set scoring.model"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        local = mlflow.artifacts.download_artifacts(f"models:/{name}/{found.version}", dst_path=folder)
        return ModelVersion(name, int(found.version), Bundle.load(Path(local) / "artifacts" / "bundle"))


def _signature(contract: Contract) -> ModelSignature:
    # Numbers as double: MLflow refuses a whole number sent as 1.0 for any integer type. The contract checks the rest.
    columns: list[ColSpec | TensorSpec] = [
        ColSpec("string" if column.type == "string" else "double", column.name, required=not column.nullable)
        for column in contract.columns
    ]
    outputs: list[ColSpec | TensorSpec] = [ColSpec("double", "probability"), ColSpec("integer", "prediction")]
    return ModelSignature(inputs=Schema(columns), outputs=Schema(outputs))
