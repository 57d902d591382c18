"""The trainings that a model takes: one of its own, or those of an ensemble's members. Runs anywhere; needs no Spark."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from mlspark import storage
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.features.tensors import Tensors
from mlspark.models.ensemble import EnsembleSettings, MemberRun, of_member
from mlspark.models.model import Model
from mlspark.streaming.settings import StreamingSettings
from mlspark.tasks.task import Task
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec, check_mix, check_pictures, check_ranks

_VERSION, _MANIFEST = "version", "files.json"


def check(model: Model, training: TrainingSettings, streaming: StreamingSettings, task: Task) -> None:
    """Check what of the settings alone says that a training cannot be.

    Raises:
        ConfigError: names the setting, and the member.
    """
    for name, (of_model, of_training) in _trainings(model, training).items():
        with of_member(name):
            if of_model.learner == "network":
                check_ranks(of_training, streaming)
                check_mix(of_training, task)
            else:
                _check_no_pictures(of_model, of_training, training.augment if name else {})
            task.metric(of_training.best, setting="training.best")
    model.check(task)


def _check_no_pictures(model: Model, training: TrainingSettings, of_all: Mapping[str, Any]) -> None:
    """Check that nothing is asked of pictures of a model that learns from none, but what all members are asked for."""
    asked = [f"augment.{name}" for name, changes in training.augment.items() if changes and changes != of_all.get(name)]
    if asked or training.mix.is_on:
        remedy = "set it to []" if asked else "leave it out"
        raise ConfigError(
            f"training.{asked[0] if asked else 'mix'}: model.kind={model.kind} learns from no pictures; {remedy}, or choose "
            f"a network"
        )


def check_tensors(model: Model, training: TrainingSettings, task: Task, tensors: Tensors) -> None:
    """Check that a model, or each member, can read the tensors of a table, and what is done to its pictures fits them.

    Raises:
        ConfigError: names the setting, and the member.
    """
    model.check_tensors(tensors)
    for name, (of_model, of_training) in _trainings(model, training, tensors).items():
        if of_model.learner == "network":
            with of_member(name):
                check_pictures(of_training, task, of_model.chosen(tensors))


def expanded(spec: TrainingSpec) -> TrainingSpec:
    """Return the spec with those of the trainings of its members, where the model is an ensemble.

    Raises:
        ConfigError: a setting of a member's `training` is none, or has a wrong value.
    """
    if not isinstance(spec.model, EnsembleSettings):
        return spec
    members = {
        name: replace(
            spec,
            run_uri=spec.member_uri(name),
            tensors=model.chosen(spec.tensors),
            model=model,
            training=training,
            members={},
        )
        for name, (model, training) in _trainings(spec.model, spec.training, spec.tensors).items()
    }
    return replace(spec, members=members)


def keep_version(spec: TrainingSpec, name: str, files: Mapping[str, bytes]) -> None:
    """Put the files of a registered version's engine where the training of an ensemble finds its member."""
    folder = storage.join(spec.member_uri(name), _VERSION)
    for file, content in files.items():
        storage.write_bytes(storage.join(folder, file), content)
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in sorted(files.items())}
    storage.write_sealed(storage.join(folder, _MANIFEST), {"files": digests})


def kept_version(spec: TrainingSpec, name: str) -> dict[str, bytes]:
    """Return the files that `keep_version` wrote.

    Raises:
        ConfigError: there are none.
        TrainingFailed: a file is another one.
    """
    folder = storage.join(spec.member_uri(name), _VERSION)
    if not storage.exists(storage.join(folder, _MANIFEST)):
        raise ConfigError("a registered version is a member of what jobs/train.py trains; give a model instead")
    files = {}
    for file, digest in storage.read_sealed(storage.join(folder, _MANIFEST))["files"].items():
        files[file] = storage.read_bytes(storage.join(folder, file))
        if hashlib.sha256(files[file]).hexdigest() != digest:
            raise TrainingFailed(f"{storage.join(folder, file)}: damaged (its SHA-256 is another); train again")
    return files


def _trainings(
    model: Model, training: TrainingSettings, tensors: Tensors | None = None
) -> dict[str, tuple[Model, TrainingSettings]]:
    """Return member -> what is trained, and how; of a model alone it is called "". `tensors` are those of the table."""
    if not isinstance(model, EnsembleSettings):
        return {"": (model, training)}
    trainings: dict[str, tuple[Model, TrainingSettings]] = {}
    for run in model.runs():
        if run.settings.model is not None:
            own = _training_of(run, training)
            if tensors is not None and "augment" not in run.settings.training:
                own = _of_pictures(own, run.settings.model.chosen(tensors))
            trainings[run.name] = run.settings.model, own
    return trainings


def _training_of(run: MemberRun, of_all: TrainingSettings) -> TrainingSettings:
    """Return how a member is trained: its own settings over those of all."""
    own = dict(run.settings.training)
    first = run.settings.seed if run.settings.seed is not None else own.pop("seed", None)
    own["seed"] = of_all.seed + run.place if first is None else first + run.repetition
    if run.settings.snapshots:
        own = _merged(own, {"optimizer": {"schedule": "cosine", "cycles": run.settings.snapshots}})
    values = _merged(of_all.model_dump(mode="json"), own)
    try:
        return TrainingSettings.model_validate_json(json.dumps(values))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"model.members: {run.name}: {_words(problem)}") from None


def _words(problem: Any) -> str:
    setting = ".".join(str(part) for part in ("training", *problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{setting}: {problem['msg'].removeprefix('Value error, ')}"
    close = difflib.get_close_matches(str(problem["loc"][-1]), TrainingSettings.model_fields, n=1)
    return f"{setting}: unknown key" + (f", did you mean {close[0]}?" if close else "")


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with those of `over` in their place; sections merge, but for mappings by names of the data."""
    result = dict(values)
    for key, value in over.items():
        is_section = isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and key not in _BY_NAME
        result[key] = _merged(result[key], value) if is_section else value
    return result


_BY_NAME = ("augment", "unfreeze", "rates")
"""Settings that are mappings from names of the data or the model."""


def _of_pictures(training: TrainingSettings, tensors: Tensors) -> TrainingSettings:
    """Return settings of all members without what they do to pictures that this one does not read."""
    augment = {name: value for name, value in training.augment.items() if name in tensors.pictures}
    return training.model_copy(update={"augment": augment})
