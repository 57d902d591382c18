"""What a training takes from elsewhere: initial weights, of each member too, and the versions that are members. Driver."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlspark.errors import ConfigError
from mlspark.features.prepared import Prepared
from mlspark.models.ensemble import EnsembleSettings, MemberRun, MemberSettings, of_member
from mlspark.registry import initial_weights, versions
from mlspark.registry.initial_weights import Found
from mlspark.registry.package import Package
from mlspark.tasks.task import Task
from mlspark.tracking.runs import Client
from mlspark.training import members
from mlspark.training.spec import TrainingSpec

_NOT_OF_ENGINE = (
    "manifest.json", "encoder.json", "contract.json", "task.json", "provenance.json", "requirements.txt",
)  # fmt: skip
"""Files of a version that its engine does not need."""
_FREE = ("threshold",)
"""Settings of a task that do not change what outputs mean."""


@dataclass(frozen=True)
class TrainingInputs:
    """What was found."""

    weights: Mapping[str, Found | None] = field(default_factory=dict)
    """Member -> weights that it begins with; "" of a model alone."""
    versions: Mapping[str, Package] = field(default_factory=dict)
    """Member -> registered version."""


def resolve(
    client: Client, spec: TrainingSpec, prepared: Prepared | None, *, retry_seconds: float
) -> tuple[TrainingSpec, TrainingInputs]:
    """Return the spec with all that it takes named down to its SHA-256, those of its members in it, and what that is.

    Args:
        client: of the registry.
        spec: the run.
        prepared: table that is trained on; None: no version can be a member.
        retry_seconds: how long a store that does not answer is tried.

    Raises:
        ConfigError: weights are not there, or not those of the SHA-256; or a version is not of the table's contract, task
            and features. Names the member.
        RegistryError: no such version.
        TrackingError: MLflow does not answer.
    """
    if not isinstance(spec.model, EnsembleSettings):
        spec, found = initial_weights.resolve(client, spec, retry_seconds=retry_seconds)
        return spec, TrainingInputs({"": found})
    found_versions: dict[str, Package] = {}
    settings: list[MemberSettings] = []
    for run in spec.model.runs():
        with of_member(run.name):
            member = run.settings
            if member.version:
                if prepared is None:
                    raise ConfigError("a search takes no registered version as a member; give a model instead")
                member, package = _version(client, run, retry_seconds)
                _check(package, prepared, spec)
                [name] = replace(run, settings=member).names
                found_versions[name] = package
        if not run.repetition:
            settings.append(member)
    spec = members.expanded(replace(spec, model=spec.model.model_copy(update={"members": tuple(settings)})))
    resolved, weights = {}, {}
    for name, of in spec.members.items():
        with of_member(name):
            resolved[name], weights[name] = initial_weights.resolve(client, of, retry_seconds=retry_seconds)
    return replace(spec, members=resolved), TrainingInputs(weights, found_versions)


def fitted(spec: TrainingSpec, inputs: TrainingInputs) -> dict[str, bytes | None]:
    """Return the file of the weights that each network begins with, by member; None where it begins at random.

    Raises:
        ConfigError: they do not fit the network; names the member.
    """
    files = {}
    for name, found in inputs.weights.items():
        with of_member(name):
            files[name] = initial_weights.fitted(_of(spec, name), found)
    return files


def keep(spec: TrainingSpec, inputs: TrainingInputs, weights: Mapping[str, bytes | None]) -> None:
    """Write what is taken to where ranks and members are trained."""
    for name, content in weights.items():
        initial_weights.keep(_of(spec, name), content)
    for name, package in inputs.versions.items():
        members.keep_version(
            spec, name, {file: content for file, content in package.files.items() if file not in _NOT_OF_ENGINE}
        )


def _of(spec: TrainingSpec, name: str) -> TrainingSpec:
    return spec.members[name] if name else spec


def _version(client: Client, run: MemberRun, retry_seconds: float) -> tuple[MemberSettings, Package]:
    """Return the settings of a version, down to its number and SHA-256, and its content. The name stays."""
    settings = run.settings
    name, wanted = versions.named(settings.version, "version")
    version = versions.find(client, name, wanted, retry_seconds=retry_seconds)
    digest = version.package.digest
    if settings.sha256 and digest != settings.sha256:
        raise ConfigError(
            f"version={settings.version} has the SHA-256 {digest}, sha256 says {settings.sha256}; give the one that is meant"
        )
    changes = {"name": run.name, "version": f"{name}/{version.version}", "sha256": digest}
    return settings.model_copy(update=changes), version.package


def _check(package: Package, prepared: Prepared, spec: TrainingSpec) -> None:
    """Raise ConfigError where a version is of another contract or task, or encodes rows otherwise; names what differs."""
    tensors = [tensor["name"] for tensor in json.loads(package.files["model.json"])["tensors"]["specs"]]
    missing = [name for name in tensors if spec.tensors.get(name) is None]
    if missing:
        raise ConfigError(
            f"the version reads {', '.join(missing)}, which {prepared.table} or model.inputs does not have"
        )
    here, there = prepared.encoder.only(tensors), package.encoder
    differences = [
        *_columns(package, prepared),
        *(f"task setting {name}" for name in _different(_task(package.task), _task(spec.task))),
        *(f"feature {name}" for name in _different(_features(there), _features(here))),
        *(f"input {name}" for name in _different(there.inputs, here.inputs)),
    ]
    if differences:
        raise ConfigError(
            f"the version is not of the contract, task and features of {prepared.table}; other there: "
            f"{', '.join(differences[:10])}; give the model to be trained on this table instead"
        )


def _columns(package: Package, prepared: Prepared) -> Iterator[str]:
    there, here = package.contract, prepared.contract
    for name in _different(*({rule.name: rule.model_dump() for rule in each.columns} for each in (there, here))):
        yield f"contract column {name}"
    for name in _different(there.model_dump(exclude={"columns"}), here.model_dump(exclude={"columns"})):
        yield f"contract {name}"


def _task(task: Task) -> dict[str, Any]:
    return task.model_dump(mode="json", exclude=set(_FREE))


def _features(encoder: Any) -> dict[str, Any]:
    return {feature.name: feature.model_dump(mode="json") for feature in encoder.features}


def _different(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    return [name for name in {**there, **here} if there.get(name) != here.get(name)]
