"""Model versions in MLflow: registered whole and once for each run, found by number or alias. Driver only."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mlspark.errors import RegistryError
from mlspark.registry import signature
from mlspark.registry.package import DIGEST_TAG, Package
from mlspark.registry.settings import check_names

_LOADER = "mlspark.scoring.mlflow_model"
"""Module by which MLflow loads a version; a name, since scoring stands on the registry."""
_RULES_TAG = "mlspark.rules_not_served"
"""Tag of a version, and entry of its MLmodel file: row rules that are not checked when it is served."""
_FOLDER = "data/package"
"""Folder of the package in a version's files."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version with its content."""

    name: str
    version: int
    package: Package


def register(client: MlflowClient, package: Package, *, run_id: str, name: str, alias: str) -> int:
    """Log `package` as a model of run `run_id`, register it and return its version number.

    A run registers once under a name: again, it moves the alias to the existing version and returns that. The alias
    moves last, so it never points to a version that is not complete. An empty alias moves nothing.

    Args:
        client: of the store that is this process's default.
        package: what the run trained.
        run_id: the run, active or ended.
        name: of the registered model; created where it is new.
        alias: of the version.

    Raises:
        RegistryError: the run registered another model under this name, or MLflow could not find this name or alias again.
    """
    check_names(name, alias)
    version = _registered(client, name, run_id, package)
    if version is None:
        with tempfile.TemporaryDirectory() as folder:
            package.save(Path(folder) / "package")
            logged = Model.log(
                None,
                flavor=mlflow.pyfunc,
                name="model",
                loader_module=_LOADER,
                data_path=str(Path(folder) / "package"),
                signature=signature.of(package),
                pip_requirements=package.requirements,
                metadata={DIGEST_TAG: package.digest, _RULES_TAG: list(package.unserved_rules)},
                run_id=run_id,
            )
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        tags = {key: str(value) for key, value in package.provenance.items() if isinstance(value, str | int)}
        tags[DIGEST_TAG] = package.digest
        tags[_RULES_TAG] = ",".join(package.unserved_rules)
        created = client.create_model_version(
            name, logged.model_uri, run_id=run_id, model_id=logged.model_id, tags=tags
        )
        version = int(created.version)
    if alias:
        client.set_registered_model_alias(name, alias, str(version))
    return version


def find(client: MlflowClient, name: str, wanted: int | str) -> ModelVersion:
    """Return the version with number or alias `wanted`.

    Raises:
        RegistryError: no such model, version or alias, and names the existing ones; or a file of the version is missing
            or not what was registered.
    """
    try:
        if isinstance(wanted, int):
            version = client.get_model_version(name, str(wanted))
        else:
            version = client.get_model_version_by_alias(name, wanted)
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
        local = mlflow.artifacts.download_artifacts(f"models:/{name}/{version.version}", dst_path=folder)
        content = Path(local) / _FOLDER
        return ModelVersion(name, int(version.version), Package.load(content, digest=version.tags.get(DIGEST_TAG, "")))


def _registered(client: MlflowClient, name: str, run_id: str, package: Package) -> int | None:
    """Return the version that a run registered, None where it registered none.

    A run that goes on after its driver was killed may have registered already: the same model, with another provenance
    (how long it took, the commit, the libraries). The version keeps the first.
    """
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if not versions:
        return None
    first = min(versions, key=lambda version: int(version.version))
    number = int(first.version)
    if first.tags.get(DIGEST_TAG) != package.digest and not find(client, name, number).package.is_same_model(package):
        raise RegistryError(
            f"model {name}: run {run_id} registered version {number} of other content; a run registers once: train "
            f"again, or give another name"
        )
    return number
