"""Registered versions as members of an ensemble: of the same contract, task and features, or refused with what differs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlspark import models
from mlspark.errors import ConfigError
from mlspark.features.prepared import Prepared
from mlspark.models.ensemble import EnsembleSettings
from mlspark.models.initial import InitialWeights
from mlspark.models.tabular import TabularSettings
from mlspark.models.weights import to_bytes
from mlspark.registry import training_inputs
from mlspark.registry.package import Package
from mlspark.streaming.settings import StreamingSettings
from mlspark.training import members
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec

from .example import package

pytestmark = pytest.mark.usefixtures("example_uri")
SMALL = {"kind": "tabular", "hidden": [16]}


def table(of: Package) -> Prepared:
    return Prepared("features", 0, {}, of.encoder, of.task, of.contract)


def spec_of(folder: Path, prepared: Prepared, *of: dict[str, Any], **settings: Any) -> TrainingSpec:
    return TrainingSpec(
        run_uri=str(folder),
        tensors=prepared.encoder.tensors(prepared.task),
        task=prepared.task,
        model=models.from_json({"kind": "ensemble", "members": list(of), **settings}),
        training=TrainingSettings(),
        streaming=StreamingSettings(),
    )


def resolve(client: MlflowClient, folder: Path, prepared: Prepared, version: str = "example/1", **of: Any) -> Any:
    spec = spec_of(folder, prepared, {"version": version, **of}, {"model": SMALL})
    return training_inputs.resolve(client, spec, prepared, retry_seconds=1.0)


def test_a_version_of_the_table_is_taken_with_its_engine_alone(client: MlflowClient, tmp_path: Path) -> None:
    here = package()
    spec, found = resolve(client, tmp_path, table(here), "example@champion")
    assert isinstance(spec.model, EnsembleSettings)
    of_version = spec.model.members[0]
    assert (of_version.version, of_version.sha256) == ("example/1", here.digest)
    assert list(spec.members) == ["tabular"]
    training_inputs.keep(spec, found, training_inputs.fitted(spec, found))
    assert members.kept_version(spec, "example-champion") == {
        name: here.files[name] for name in ("model.json", "weights.safetensors")
    }
    assert resolve(client, tmp_path, table(here))[0].digest("t") != resolve(client, tmp_path, table(here), name="b")[
        0
    ].digest("t")


def changed(of: Package, **parts: Any) -> Prepared:
    return dataclasses.replace(table(of), **parts)


def test_what_differs_is_named(client: MlflowClient, tmp_path: Path) -> None:
    here = package()
    columns = tuple(
        rule.model_copy(update={"max": 5.0}) if rule.name == "real" else rule for rule in here.contract.columns
    )
    features = tuple(
        feature.model_copy(update={"center": 2.0}) if feature.name == "single" else feature
        for feature in here.encoder.features
    )
    cases = [
        (changed(here, contract=here.contract.model_copy(update={"columns": columns})), "contract column real"),
        (changed(here, contract=here.contract.model_copy(update={"rules": ()})), "contract rules"),
        (changed(here, task=here.task.model_copy(update={"classes": ("yes", "no")})), "task setting classes"),
        (changed(here, encoder=here.encoder.model_copy(update={"features": features})), "feature single"),
    ]
    for prepared, part in cases:
        with pytest.raises(
            ConfigError, match=r"model\.members: example-1: the version is not of .*; other there: " + part
        ):
            resolve(client, tmp_path, prepared)
    # What is done with probabilities is the ensemble's own.
    resolve(client, tmp_path, changed(here, task=here.task.model_copy(update={"threshold": 0.3})))


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"sha256": "0" * 64}, r"model\.members: example-1: version=example/1 has the SHA-256 \w+, sha256 says 0000"),
        ({"version": "example/9"}, r"model\.members: example-9: model example: no version or alias 9"),
    ],
)
def test_another_version_is_refused(client: MlflowClient, tmp_path: Path, of: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(client, tmp_path, table(package()), **of)


def test_a_version_reads_what_the_ensemble_reads(client: MlflowClient, tmp_path: Path) -> None:
    here = table(package())
    spec = spec_of(tmp_path, here, {"version": "example/1"}, {"model": SMALL}, inputs=["dense"])
    spec = dataclasses.replace(spec, tensors=spec.model.chosen(spec.tensors))
    with pytest.raises(ConfigError, match=r"the version reads ids, which features or model\.inputs does not have"):
        training_inputs.resolve(client, spec, here, retry_seconds=1.0)
    with pytest.raises(ConfigError, match="a search takes no registered version as a member"):
        training_inputs.resolve(client, spec, None, retry_seconds=1.0)


def test_members_begin_with_weights_of_their_own(client: MlflowClient, tmp_path: Path) -> None:
    here = table(package())
    tensors = here.encoder.tensors(here.task)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(to_bytes(models.build(TabularSettings(hidden=(16,)), tensors, 1).state_dict()))
    begun = {**SMALL, "weights": InitialWeights(file=str(file)).model_dump(mode="json")}
    spec = spec_of(tmp_path, here, {"name": "begun", "model": begun}, {"model": SMALL})
    resolved, found = training_inputs.resolve(client, spec, here, retry_seconds=1.0)
    assert resolved.members["begun"].model.initial is not None
    assert resolved.members["begun"].model.initial.sha256
    training_inputs.keep(resolved, found, training_inputs.fitted(resolved, found))
    assert Path(resolved.members["begun"].initial_uri).is_file()
    assert not Path(resolved.members["tabular"].initial_uri).exists()
    wrong = spec_of(tmp_path, here, {"name": "wide", "model": {**begun, "hidden": [17]}}, {"model": SMALL})
    resolved, found = training_inputs.resolve(client, wrong, here, retry_seconds=1.0)
    with pytest.raises(ConfigError, match=r"model\.members: wide: model\.weights: .* does not fit model\.kind=tabular"):
        training_inputs.fitted(resolved, found)
