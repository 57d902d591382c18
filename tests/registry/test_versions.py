"""Versions are registered whole, once for each run, and found whole."""

import subprocess
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.models import get_model_info

from mlspark.errors import RegistryError
from mlspark.registry import provenance, versions
from mlspark.registry.package import DIGEST_TAG, Package

from .conftest import new_run
from .example import ROW, package


def test_registered_version_is_found_by_number_and_alias(client: MlflowClient, example_uri: str) -> None:
    for wanted in (1, "champion"):
        model = versions.find(client, "example", wanted)
        assert (model.name, model.version) == ("example", 1)
        assert model.package.files == package().files
    version = client.get_model_version("example", "1")
    assert version.tags[DIGEST_TAG] == package().digest
    assert version.tags["table_version"] == "3"


def test_run_registers_once(client: MlflowClient, example_uri: str) -> None:
    run_id = new_run(client)
    first = versions.register(client, package("regression"), run_id=run_id, name="once", alias="")
    again = versions.register(client, package("regression"), run_id=run_id, name="once", alias="champion")
    assert (first, again) == (1, 1)
    assert versions.find(client, "once", "champion").version == 1
    with pytest.raises(RegistryError, match=r"registered version 1 of other content; a run registers once"):
        versions.register(client, package("binary"), run_id=run_id, name="once", alias="")
    other = versions.register(client, package("regression"), run_id=new_run(client), name="once", alias="")
    assert other == 2


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("example", 99, r"model example: no version or alias 99 \(versions: 1; aliases: champion\); set scoring.model"),
        ("example", "best", "model example: no version or alias 'best'"),
        ("other", 1, r"model other: not registered \(registered: .*example.*check registry.model_name"),
    ],
)
def test_absent_version_is_refused_by_name(
    client: MlflowClient, example_uri: str, name: str, wanted: int | str, message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        versions.find(client, name, wanted)


def test_bytes_changed_in_the_store_are_refused(client: MlflowClient, example_uri: str) -> None:
    versions.register(client, package("multiclass"), run_id=new_run(client), name="changed", alias="")
    folder = Path(client.get_model_version_download_uri("changed", "1").removeprefix("file://"))
    [file] = folder.rglob("contract.json")
    file.write_bytes(file.read_bytes().replace(b"120", b"121") + b" ")
    with pytest.raises(RegistryError, match=r"contract.json: changed since the version was registered"):
        versions.find(client, "changed", 1)
    [manifest] = folder.rglob("manifest.json")
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(RegistryError, match=r"manifest.json: changed since the version was registered"):
        versions.find(client, "changed", 1)


def test_signature_and_requirements_are_the_contract_s_and_pinned(client: MlflowClient, example_uri: str) -> None:
    info = get_model_info(example_uri)
    names = [column.name for column in package().input_contract.columns]
    assert info.signature.inputs.input_names() == names
    assert "label" not in names
    assert names[-1] == "events_mean"
    assert info.signature.outputs.input_names() == ["probability", "prediction"]


def test_run_that_goes_on_after_it_registered_keeps_its_version(client: MlflowClient, example_uri: str) -> None:
    """A driver killed after the registration learns again: the same model, in another time."""
    run_id, made = new_run(client), package("regression")
    model = {name: made.files[name] for name in ("model.json", "weights.safetensors")}
    again = Package.pack(
        model=model, encoder=made.encoder, contract=made.contract, task=made.task,
        provenance=made.provenance | {"train_seconds": 2.0},
    )  # fmt: skip
    assert again.digest != made.digest
    numbers = [versions.register(client, each, run_id=run_id, name="killed", alias="") for each in (made, again)]
    assert numbers == [1, 1]


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        *((name, "") for name in ("a/b", "a:b", "o'neil", "..", "a\nb", "a?b", "", " ", "x" * 256)),
        *(("names", alias) for alias in ("v1", "latest", "12", "a b", "..", "x" * 256)),
    ],
)
def test_name_that_is_not_found_again_is_refused_before_anything_is_kept(
    client: MlflowClient, name: str, alias: str
) -> None:
    with pytest.raises(RegistryError, match=r"names no registered model|is no alias"):
        versions.register(client, package(), run_id=new_run(client), name=name, alias=alias)
    assert not client.search_model_versions("name = 'names'")


EXAMPLE = {name: value for name, value in ROW.items() if isinstance(value, int | float | str | list | bool)} | {
    "day": "2024-02-29",
    "moment": "2024-02-29 18:30:01",
    "amount": "12.34",
}


def test_version_has_an_example_a_card_and_its_metrics(client: MlflowClient, example_uri: str) -> None:
    run_id = new_run(client)
    number = versions.register(client, package(), run_id=run_id, name="shown", alias="", example=EXAMPLE)
    served = mlflow.pyfunc.load_model(f"models:/shown/{number}")
    assert list(served.input_example.iloc[0].items()) == list(EXAMPLE.items())
    assert len(served.predict(served.input_example)) == 1
    version, run = client.get_model_version("shown", str(number)), client.get_run(run_id)
    for said in ("Predicts `label` (binary)", "| accuracy | 0.8500 [0.8200, 0.8800] |", "c0ffee, with changes"):
        assert said in version.description
    assert version.description == run.data.tags["mlflow.note.content"]
    assert version.tags["git_commit"] == "c0ffee"
    assert run.data.metrics == {"test_accuracy": 0.85}
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert [(metric.key, metric.value, metric.step) for metric in model.metrics] == [("test_accuracy", 0.85, 24)]


def test_what_a_killed_registration_left_is_used_or_deleted(client: MlflowClient, example_uri: str) -> None:
    """Killed after the model was logged, and killed while another one was being logged."""
    run_id = new_run(client)
    experiment = client.get_run(run_id).info.experiment_id
    logged = versions._log(package("multiclass"), run_id, None)
    begun = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    number = versions.register(client, package("multiclass"), run_id=run_id, name="orphan", alias="")
    assert client.get_model_version("orphan", str(number)).source == f"models:/{logged}"
    left = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    assert [model.model_id for model in left] == [logged]
    assert begun.model_id != logged


def test_commit_is_that_of_the_pipeline_s_folder(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path / "pipeline", check=True, capture_output=True)

    (tmp_path / "pipeline" / "schemas").mkdir(parents=True)
    contract = tmp_path / "pipeline" / "schemas" / "census.json"
    contract.write_text("{}")
    assert provenance.revision(tmp_path / "pipeline") == provenance.Revision("")
    git("init", "--quiet")
    assert provenance.revision(contract.parent) == provenance.Revision("")  # no commit yet
    git("add", ".")
    git("commit", "--quiet", "--message", "begun")
    clean = provenance.revision(contract.parent)
    assert len(clean.commit) == 40
    assert not clean.is_changed
    contract.write_text("[]")
    assert provenance.revision(contract.parent) == provenance.Revision(clean.commit, is_changed=True)
    assert provenance.revision(tmp_path / "absent") == provenance.Revision("")
