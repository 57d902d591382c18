"""Model versions in MLflow: registered whole and once for each run, found by number or alias. Driver only."""

import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mlspark.errors import ConfigError, RegistryError
from mlspark.registry import signature
from mlspark.registry.card import card
from mlspark.registry.package import DIGEST_TAG, Package
from mlspark.registry.settings import check_names
from mlspark.tracking.answers import answered, may_pass

_LOADER = "mlspark.scoring.mlflow_model"
"""Module by which MLflow loads a version; a name, since scoring stands on the registry."""
_RULES_TAG = "mlspark.rules_not_served"
"""Tag of a version, and entry of its MLmodel file: row rules that are not checked when it is served."""
_NO_STEP = -1
"""Step of which the run has no figures: those of another step would count as the model's."""
_PREFIXES = {"validation": "best_validation_", "test": "test_"}
"""Split -> beginning of a metric's name on the run, which has the validation metrics of each epoch, too."""
_FOLDER = "data/package"
"""Folder of the package in a version's files."""
_EXAMPLE = "input_example.json"
"""File of the input example in a version's files."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version with its content."""

    name: str
    version: int
    package: Package
    example: Mapping[str, Any] | None = None
    """A row that it takes, column -> JSON value; None where it was registered without one."""


def register(
    client: MlflowClient,
    package: Package,
    *,
    run_id: str,
    name: str,
    alias: str,
    example: Mapping[str, Any] | None = None,
    retry_seconds: float = 60.0,
) -> int:
    """Log `package` as a model of run `run_id`, register it and return its version number.

    A run registers once under a name: again, it moves the alias to the existing version and returns that. The alias
    moves last, so it never points to a version that is not complete, and forwards only: not from a later version to this
    one. An empty alias moves nothing. What an earlier call left that was killed is used or deleted.

    Args:
        client: of the store that is this process's default.
        package: what the run trained.
        run_id: the run, active or ended.
        name: of the registered model; created where it is new.
        alias: of the version.
        example: a row that the model takes; column -> JSON value.
        retry_seconds: how long a store that does not answer is tried.

    Raises:
        RegistryError: the run registered another model under this name, or MLflow could not find this name or alias again.
        TrackingError: the store does not answer, or refuses; nothing is half-registered: run again.
    """
    check_names(name, alias)

    def version_of_run() -> int:
        version = _registered(client, name, run_id, package)
        return _create(client, package, run_id, name, example) if version is None else version

    version = answered("register the model", version_of_run, seconds=retry_seconds)
    if alias and (with_alias(client, name, alias, retry_seconds=retry_seconds) or 0) < version:
        move_alias(client, name, alias, version, retry_seconds=retry_seconds)
    return version


def _create(client: MlflowClient, package: Package, run_id: str, name: str, example: Mapping[str, Any] | None) -> int:
    """Return the number of a new version."""
    model_id = _logged(client, package, run_id) or _log(package, run_id, example)
    _log_metrics(client, package, run_id, model_id)
    text = card(package, name)
    client.set_tag(run_id, "mlflow.note.content", text)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {key: str(value) for key, value in package.provenance.items() if isinstance(value, str | int)}
    tags[DIGEST_TAG] = package.digest
    tags[_RULES_TAG] = ",".join(package.unserved_rules)
    created = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, model_id=model_id, tags=tags, description=text
    )
    return int(created.version)


def _log(package: Package, run_id: str, example: Mapping[str, Any] | None) -> str:
    """Return the id of a new logged model of the run."""
    with tempfile.TemporaryDirectory() as folder:
        package.save(Path(folder) / "package")
        logged = Model.log(
            None,
            flavor=mlflow.pyfunc,
            name="model",
            loader_module=_LOADER,
            data_path=str(Path(folder) / "package"),
            signature=signature.of(package),
            input_example=None if example is None else pd.DataFrame([example]),
            pip_requirements=package.requirements,
            metadata={DIGEST_TAG: package.digest, _RULES_TAG: list(package.unserved_rules)},
            tags={DIGEST_TAG: package.digest},
            run_id=run_id,
            step=_NO_STEP,
        )
    return str(logged.model_id)


def _logged(client: MlflowClient, package: Package, run_id: str) -> str | None:
    """Return the model that an earlier call logged and did not come to register; one that is not this one is deleted."""
    experiment = client.get_run(run_id).info.experiment_id
    whole = None
    for model in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY and model.tags.get(DIGEST_TAG) == package.digest:
            whole = str(model.model_id)
        elif not client.search_model_versions(f"run_id = '{run_id}'"):
            client.delete_logged_model(model.model_id)
    return whole


def _log_metrics(client: MlflowClient, package: Package, run_id: str, model_id: str) -> None:
    """Log the metrics of the registered weights, on the run and on its model."""
    provenance, now = package.provenance, int(time.time() * 1000)
    step = int(provenance.get("steps") or provenance.get("rounds") or 0)
    client.log_batch(
        run_id,
        metrics=[
            Metric(f"{_PREFIXES[split]}{name}", value, now, step, model_id=model_id, run_id=run_id)
            for split, of_split in provenance["metrics"].items()
            for name, value in of_split.items()
            if isinstance(value, float)
        ],
    )


def named(version: str, setting: str) -> tuple[str, int | str]:
    """Return name, and number or alias, of a version that a setting gives as NAME/3 or NAME@alias; ConfigError if not so."""
    match = re.fullmatch(r"(.+?)(?:/([1-9]\d*)|@([\w-]+))", version)
    if match is None:
        raise ConfigError(f"{setting}={version}: expected NAME/3 or NAME@alias")
    name, number, alias = match.groups()
    return name, int(number) if number else alias


def find(
    client: MlflowClient,
    name: str,
    wanted: int | str,
    *,
    retry_seconds: float = 60.0,
    remedy: str = "set scoring.model, or mlspark promote a version",
) -> ModelVersion:
    """Return the version with number or alias `wanted`; `remedy` is what the message advises where there is none.

    Raises:
        RegistryError: no such model, version or alias, and names the existing ones; or a file of the version is missing
            or not what was registered.
        TrackingError: the store did not answer for `retry_seconds`.
    """
    return answered(f"find model {name}", lambda: _found(client, name, wanted, remedy), seconds=retry_seconds)


def _found(client: MlflowClient, name: str, wanted: int | str, remedy: str) -> ModelVersion:
    try:
        if isinstance(wanted, int):
            version = client.get_model_version(name, str(wanted))
        else:
            version = client.get_model_version_by_alias(name, wanted)
    except MlflowException as error:
        if may_pass(error):
            raise
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
            f"aliases: {aliases}); {remedy}"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        local = mlflow.artifacts.download_artifacts(f"models:/{name}/{version.version}", dst_path=folder)
        content = Path(local) / _FOLDER
        try:
            package = Package.load(content, digest=version.tags.get(DIGEST_TAG, ""))
        except RegistryError as error:  # in a folder that is gone when this is read
            raise RegistryError(str(error).replace(str(content), f"model {name} version {version.version}")) from error
        return ModelVersion(name, int(version.version), package, _example(Path(local) / _EXAMPLE))


def _example(file: Path) -> dict[str, Any] | None:
    """Return the row of an input example as MLflow keeps it."""
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    return dict(zip(content["columns"], content["data"][0], strict=True))


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


def run_of(client: MlflowClient, name: str, version: int, *, retry_seconds: float = 60.0) -> str | None:
    """Return the id of the run that registered a version, None where there is no such version. Raises as `find` does."""

    def run_of_version() -> str | None:
        try:
            return str(client.get_model_version(name, str(version)).run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    return answered(f"find model {name}", run_of_version, seconds=retry_seconds)


def with_tag(client: MlflowClient, name: str, key: str, value: str, *, retry_seconds: float = 60.0) -> int | None:
    """Return the first version that has this value of a tag, None without one. Raises TrackingError as `find` does."""
    found = answered(
        f"find model {name}",
        lambda: client.search_model_versions(f"name = '{name}'"),
        seconds=retry_seconds,
    )
    return min((int(version.version) for version in found if version.tags.get(key) == value), default=None)


def with_alias(client: MlflowClient, name: str, alias: str, *, retry_seconds: float = 60.0) -> int | None:
    """Return the version that has an alias, None without one or without the model. Raises TrackingError as `find` does."""

    def aliases() -> dict[str, str]:
        models = client.search_registered_models(f"name = '{name}'")
        return dict(models[0].aliases) if models else {}

    version = answered(f"find model {name}", aliases, seconds=retry_seconds).get(alias)
    return None if version is None else int(version)


def move_alias(client: MlflowClient, name: str, alias: str, version: int, *, retry_seconds: float = 60.0) -> None:
    """Give an alias to a version, which takes it from another one in the same transaction of MLflow's database."""
    answered(
        f"move alias {alias}",
        lambda: client.set_registered_model_alias(name, alias, str(version)),
        seconds=retry_seconds,
    )


def annotate(
    client: MlflowClient, name: str, version: int, tags: Mapping[str, str], *, retry_seconds: float = 60.0
) -> None:
    """Set tags of a version, in place of earlier ones of these names. Raises TrackingError as `find` does."""
    for key, text in tags.items():
        answered(
            f"keep tag {key}",
            lambda key=key, text=text: client.set_model_version_tag(name, str(version), key, text),  # type: ignore[misc]
            seconds=retry_seconds,
        )


def example(client: MlflowClient, name: str, version: int, *, retry_seconds: float = 60.0) -> pd.DataFrame | None:
    """Return the example of a row that a version takes, one row of raw values; None where it has none."""

    def loaded() -> pd.DataFrame | None:
        with tempfile.TemporaryDirectory() as folder:
            local = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=folder)
            rows = Model.load(local).load_input_example(local)
            return rows if isinstance(rows, pd.DataFrame) else None

    return answered(f"load the example of model {name}", loaded, seconds=retry_seconds)
