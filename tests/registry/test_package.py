"""A version is whole, and no byte of it changes unseen."""

import hashlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mlspark.engines import eager, engine, source_code
from mlspark.errors import RegistryError
from mlspark.models.custom import CustomSettings
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor

from .example import encoder, package, rows

FILES = (
    "manifest.json", "model.json", "weights.safetensors", "encoder.json", "contract.json", "task.json", "provenance.json",
    "requirements.txt",
)  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    package().save(tmp_path / "package")
    return tmp_path / "package"


def test_package_survives_its_files(saved: Path) -> None:
    before, after = package(), Package.load(saved, digest=package().digest)
    assert after.files == before.files
    assert set(after.files) == set(FILES)
    assert (after.contract, after.encoder, after.task) == (before.contract, before.encoder, before.task)
    assert after.contract.label == "label"
    assert [column.name for column in after.contract.columns][:3] == ["small", "label", "number"]
    manifest = json.loads(after.files["manifest.json"])["files"]
    assert manifest == {
        name: hashlib.sha256(content).hexdigest() for name, content in after.files.items() if name != "manifest.json"
    }


@pytest.mark.parametrize("name", FILES)
def test_changed_byte_is_refused_with_the_file_and_a_remedy(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(RegistryError, match=rf"{re.escape(name)}: changed .* register the model anew"):
        Package.load(saved, digest=package().digest)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_refused_with_its_name_and_a_remedy(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(RegistryError, match=rf"{re.escape(name)}.* missing; .*register the model anew"):
        Package.load(saved)


def test_manifest_that_was_made_anew_is_refused_where_its_digest_is_known(saved: Path) -> None:
    digest = package().digest
    task = json.loads((saved / "task.json").read_text()) | {"threshold": 0.9}
    (saved / "task.json").write_text(json.dumps(task))
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"]["task.json"] = hashlib.sha256((saved / "task.json").read_bytes()).hexdigest()
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RegistryError, match=r"manifest.json: changed since the version was registered"):
        Package.load(saved, digest=digest)


@pytest.mark.parametrize("name", ["../outside.py", "/etc/passwd"])
def test_manifest_that_names_a_file_outside_is_refused(saved: Path, name: str) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RegistryError, match="outside the model"):
        Package.load(saved)


def test_package_of_another_format_is_refused(saved: Path) -> None:
    (saved / "manifest.json").write_text(json.dumps({"format": 1, "files": {}}))
    with pytest.raises(RegistryError, match="model of format 1, expected 2; train it anew"):
        Package.load(saved)


def test_every_setting_of_the_network_is_recorded() -> None:
    model = json.loads(package().files["model.json"])["model"]
    assert model == {
        "kind": "tabular", "hidden": [16], "embedding_dim_max": 16, "dropout": 0.1, "dense_frequencies": 32,
        "dense_embedding_dim": 8, "dense_scale": 8.0, "inputs": None, "weights": None,
    }  # fmt: skip


def test_requirements_are_pinned_and_known_to_the_index_but_for_mlspark() -> None:
    first, *others = package().requirements
    assert first == f"mlspark[serve]=={metadata.version('mlspark')}" or first.startswith("mlspark[serve]==")
    names = [line.partition("==")[0] for line in others]
    assert {"torch", "numpy", "pyarrow", "pydantic", "safetensors", "mlflow"} <= set(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in others)  # no "+cpu"
    assert not {"pyspark", "delta-spark", "deltalake", "petastorm"} & set(names)


def test_engine_that_is_not_known_is_refused(saved: Path) -> None:
    files = {"model.json": json.dumps({"engine": "abacus"}).encode()}
    with pytest.raises(RegistryError, match=r"engine 'abacus' is unknown \(known: .*eager"):
        engine.load(files)


def test_weights_of_another_network_are_refused() -> None:
    files = dict(package().files)
    description = json.loads(files["model.json"])
    description["model"]["hidden"] = [24]
    files["model.json"] = json.dumps(description).encode()
    with pytest.raises(RegistryError, match=r"weights.safetensors: not the weights of the network of model.json"):
        engine.load(files)


CUSTOM = """
from torch import nn

class Net(nn.Module):
    def __init__(self, tensors, num_outputs):
        super().__init__()
        self.layer = nn.Linear(tensors.num_dense, num_outputs)

    def forward(self, dense, ids):
        return self.layer(dense)

def net(tensors, num_outputs):
    return Net(tensors, num_outputs)
"""


def custom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.delitem(sys.modules, "their_model", raising=False)
    (folder / "their_model.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(str(folder))
    base = package()
    settings = CustomSettings(factory="their_model:net")
    tensors = encoder().tensors(base.task)
    weights = settings.build(tensors, 1).state_dict()
    code = source_code.capture("their_model:net")
    model = eager.pack(settings, tensors, 1, weights, code)
    return Package.pack(
        model=model, encoder=base.encoder, contract=base.contract, task=base.task, provenance=base.provenance
    )


def test_custom_model_is_scored_by_its_own_code_where_nobody_has_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = custom(tmp_path, monkeypatch)
    expected = Predictor(made).predict(rows())
    assert made.files["code/their_model.py"] == CUSTOM.encode()
    made.save(tmp_path / "package")
    (tmp_path / "their_model.py").unlink()
    program = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from mlspark.registry.package import Package; from mlspark.scoring.predictor import Predictor\n"
        "from tests.registry.example import rows\n"
        "print(Predictor(Package.load(Path(sys.argv[1]))).predict(rows())['probability'][0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "package")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == str(expected["probability"][0]), done.stderr


def test_factory_that_model_json_names_elsewhere_is_never_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dict(custom(tmp_path, monkeypatch).files)
    description = json.loads(files["model.json"])
    description["model"]["factory"] = "os:abort"  # only a name: what is called stands in "code"
    files["model.json"] = json.dumps(description).encode()
    engine.load(files)
    description["code"]["entry"] = "os:abort"
    files["model.json"] = json.dumps(description).encode()
    with pytest.raises(RegistryError, match="os:abort is not in the version's own code"):
        engine.load(files)
    description["code"] = None
    files["model.json"] = json.dumps(description).encode()
    with pytest.raises(RegistryError, match="a custom model without its code"):
        engine.load(files)


def test_rows_have_the_same_bits_alone_and_in_a_batch() -> None:
    predictor = Predictor(package())
    many = rows(*({"small": number % 50, "real": number / 7} for number in range(1003)))
    together = predictor.predict(many)["probability"]
    for row in (0, 1, 499, 1000, 1001, 1002):
        alone = predictor.predict(many.slice(row, 1))["probability"]
        assert alone[0].hex() == together[row].hex()
    assert len(set(together.tolist())) > 900
    assert torch.is_inference_mode_enabled() is False
