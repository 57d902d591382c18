"""Weights to begin with are found in files, on the web, in versions and in packages' caches, and reach the ranks."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from mlspark import models
from mlspark.engines import eager
from mlspark.errors import ConfigError, RegistryError, SourceError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import weights as weights_file
from mlspark.models.cnn import CnnSettings
from mlspark.models.initial import InitialWeights
from mlspark.pictures.spec import PictureSpec
from mlspark.registry import initial_weights, versions
from mlspark.registry.card import card
from mlspark.registry.package import Package
from mlspark.settings import loading
from mlspark.streaming.settings import StreamingSettings
from mlspark.tasks.kinds import from_settings
from mlspark.training import network
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import NO_FUNCTIONS, TrainingSpec

from ..conftest import ROOT
from .conftest import new_run
from .example import package

OURS = PictureSpec("RGB", 8, 8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
THEIRS = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
PLAIN = CnnSettings(widths=(4,), depth=1)


def photo(spec: PictureSpec = OURS) -> Tensors:
    return Tensors((TensorSpec("photo", ("photo",), "uint8", picture=spec),))


def spec_of(folder: Path, weights: InitialWeights | None, tensors: Tensors | None = None) -> TrainingSpec:
    return TrainingSpec(
        run_uri=str(folder),
        tensors=tensors or photo(),
        task=from_settings({"kind": "multiclass", "target": "label", "classes": ["a", "b", "c"]}),
        model=PLAIN.model_copy(update={"weights": weights}),
        training=TrainingSettings(),
        streaming=StreamingSettings(),
    )


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return dict(models.build(PLAIN, photo(), 3).state_dict())


def resolve(client: Any, spec: TrainingSpec) -> tuple[TrainingSpec, initial_weights.Found]:
    resolved, found = initial_weights.resolve(client, spec, retry_seconds=1.0)
    assert found is not None
    return resolved, found


def test_file_is_noted_by_its_digest_and_reaches_the_ranks(
    tmp_path: Path, weights: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlspark")
    file = tmp_path / "other.safetensors"
    file.write_bytes(weights_file.to_bytes(weights))
    wanted = InitialWeights(file=str(file), mean=THEIRS[0], std=THEIRS[1])
    spec, found = resolve(None, spec_of(tmp_path / "run", wanted))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert spec.model.initial == wanted.model_copy(update={"sha256": digest})
    assert spec.tensors.pictures["photo"].mean == THEIRS[0]
    initial_weights.keep(spec, initial_weights.fitted(spec, found))
    built = network.build(TrainingSpec.from_json(spec.to_json()), NO_FUNCTIONS, torch.device("cpu"))
    assert all(torch.equal(value, weights[name]) for name, value in built.state_dict().items())
    assert f"initial weights: {len(weights)} of {len(weights)} tensors of {file}, SHA-256 {digest[:12]}" in caplog.text
    assert "photo by mean 0.1000 0.2000 0.3000, std 0.5000 0.6000 0.7000" in caplog.text


def test_identity_is_of_what_is_in_the_file(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    digests = []
    for name, content in (("one", weights), ("same", weights), ("other", {**weights, "linear.bias": torch.ones(3)})):
        (tmp_path / name).write_bytes(weights_file.to_bytes(content))
        spec, _ = resolve(None, spec_of(tmp_path, InitialWeights(file=str(tmp_path / name))))
        digests.append(spec.digest("table"))
    assert digests[0] == digests[1] != digests[2]
    spec, found = initial_weights.resolve(None, spec_of(tmp_path, None), retry_seconds=1.0)  # type: ignore[arg-type]
    assert found is None
    assert initial_weights.fitted(spec, None) is None
    assert spec.digest("table") not in digests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "missing.pth"}, r"missing\.pth cannot be read"),
        ({"sha256": "0" * 64}, r"has the SHA-256 [0-9a-f]{64}, model\.weights\.sha256 says 0{64}"),
    ],
)
def test_file_that_is_not_the_one_meant_is_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor], change: dict[str, str], message: str
) -> None:
    (tmp_path / "there").write_bytes(weights_file.to_bytes(weights))
    settings = InitialWeights(**({"file": str(tmp_path / "there")} | change))
    with pytest.raises(ConfigError, match=message):
        resolve(None, spec_of(tmp_path, settings))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server on a folder: its address, and what it was asked."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_address_is_downloaded_once_and_checked(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "web").mkdir()
    content = weights_file.to_bytes(weights)
    (tmp_path / "web" / "net.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with served(tmp_path / "web") as (address, asked):
        for _ in range(2):
            _, found = resolve(None, spec_of(tmp_path, InitialWeights(url=f"{address}/net.safetensors", sha256=digest)))
            assert found.content == content
        assert asked == ["/net.safetensors"]
        for path, wrong, message in (
            ("net.safetensors", "0" * 64, r"sent another file .*nothing was kept, give another address"),
            ("none", digest[::-1], r"answered 404 .*; give another address"),
        ):
            with pytest.raises(SourceError, match=message):
                resolve(None, spec_of(tmp_path, InitialWeights(url=f"{address}/{path}", sha256=wrong)))


@pytest.fixture
def version(client: MlflowClient, weights: dict[str, torch.Tensor]) -> str:
    """A registered network for pictures, with statistics of its own."""
    theirs = photo(dataclasses.replace(OURS, mean=THEIRS[0], std=THEIRS[1]))
    made = package("multiclass")
    files = {**made.files, **eager.pack(PLAIN, theirs, 3, weights)}
    model = {name: files[name] for name in ("model.json", "weights.safetensors")}
    packed = Package.pack(
        model=model, encoder=made.encoder, contract=made.contract, task=made.task, provenance=made.provenance
    )
    number = versions.register(client, packed, run_id=new_run(client), name="photos", alias="champion")
    return f"photos/{number}"


def test_version_brings_its_weights_and_how_its_pictures_were_normalised(
    tmp_path: Path, client: MlflowClient, version: str, weights: dict[str, torch.Tensor]
) -> None:
    for wanted in (version, "photos@champion"):
        spec, found = resolve(client, spec_of(tmp_path, InitialWeights(version=wanted)))
        assert spec.model.initial is not None
        assert spec.model.initial.version == version
        assert (spec.tensors.pictures["photo"].mean, spec.tensors.pictures["photo"].std) == THEIRS
        assert found.tensors().keys() == weights.keys()
    for wanted, error, message in (
        ("photos/99", RegistryError, "no version or alias 99"),
        ("photos", ConfigError, "expected NAME/3 or NAME@alias"),
    ):
        with pytest.raises(error, match=message):
            resolve(client, spec_of(tmp_path, InitialWeights(version=wanted)))


def test_grey_pictures_take_the_mean_over_the_colours(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    (tmp_path / "there").write_bytes(weights_file.to_bytes(weights))
    wanted = InitialWeights(file=str(tmp_path / "there"), mean=THEIRS[0], std=THEIRS[1])
    grey = photo(PictureSpec("L", 8, 8, mean=(0.5,), std=(0.1,)))
    spec, found = resolve(None, spec_of(tmp_path, wanted, grey))
    assert spec.tensors.pictures["photo"].mean == pytest.approx((0.2,))
    assert spec.tensors.pictures["photo"].std == pytest.approx((0.6,))
    assert initial_weights.fitted(spec, found) is not None
    four = photo(PictureSpec("RGBA", 8, 8))
    with pytest.raises(ConfigError, match=r"of 3 channels, photo has 4; give model\.weights\.mean and std for 4"):
        resolve(None, spec_of(tmp_path, wanted, four))
    numbers = Tensors((TensorSpec("dense", ("age",), "float32"),))
    with pytest.raises(ConfigError, match=r"model\.weights\.mean: the table has no pictures"):
        resolve(None, spec_of(tmp_path, wanted, numbers))


def test_packages_give_what_is_in_their_cache_and_download_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    for name, message in (
        (
            "torchvision/resnet18",
            r"not in the cache here \(.*/resnet18-f37072fd\.pth\), and nothing is .*weights\.url",
        ),
        ("timm/resnet18.a1_in1k", r"https://huggingface\.co/timm/resnet18\.a1_in1k/resolve/main/model\.safetensors"),
        ("torchvision/resnet81", r"torchvision publishes no such weights; did you mean resnet18\?"),
        ("timm/resnet81", r"timm publishes no such weights; did you mean resnet"),
        ("keras/resnet18", "expected timm/NAME or torchvision/NAME"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(None, spec_of(tmp_path, InitialWeights(package=name)))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    torch.save({"fc.weight": torch.ones(2)}, cached)
    spec, found = resolve(None, spec_of(tmp_path, InitialWeights(package="torchvision/resnet18")))
    assert found.tensors().keys() == {"fc.weight"}
    assert spec.tensors.pictures["photo"].mean == (0.485, 0.456, 0.406)


def test_settings_come_from_yaml_and_stay_with_the_version() -> None:
    text = "model={kind: cnn, weights: {file: a.pth, names: {module: ''}, head: replace}}"
    settings = loading.load([str(ROOT / "conf" / "cifar10.yaml")], [text])
    assert settings.model.initial == InitialWeights(file="a.pth", names={"module": ""}, head="replace")
    with pytest.raises(ConfigError, match=r"model\.weights\.fil: unknown key, did you mean file\?"):
        loading.load([str(ROOT / "conf" / "cifar10.yaml")], ["model={kind: cnn, weights: {fil: a.pth}}"])
    files = eager.pack(settings.model, photo(), 3, models.build(settings.model, photo(), 3).state_dict())
    assert json.loads(files["model.json"])["model"]["weights"]["file"] == "a.pth"
    made = package()
    described = {**made.provenance, "initial_weights": {"place": "a.pth", "sha256": "ab" * 32}}
    assert "began with the weights of `a.pth`, SHA-256 abababababab" in card(
        Package({**made.files, "provenance.json": json.dumps(described).encode()}), "example"
    )
