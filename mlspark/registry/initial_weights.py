"""Weights that a training begins with: found where the settings say, noted with the run, put where ranks read. Driver."""

import dataclasses
import difflib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors
from mlspark.models.initial import InitialWeights
from mlspark.pictures.spec import PictureSpec
from mlspark.registry import versions
from mlspark.tracking.runs import Client
from mlspark.training.spec import TrainingSpec

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel of pictures, of values / 255."""


@dataclass(frozen=True)
class Found:
    """Weights as they were found."""

    settings: InitialWeights
    """As given, with the number of the version and the SHA-256."""
    content: bytes
    """File of them."""
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    """Picture -> how it was normalised for these weights; "" for all pictures."""

    def tensors(self) -> "dict[str, torch.Tensor]":
        from mlspark.models import weight_files

        return weight_files.read(self.content, self.settings.place)


def resolve(client: Client, spec: TrainingSpec, *, retry_seconds: float) -> tuple[TrainingSpec, Found | None]:
    """Return the spec with what its initial weights are, down to their SHA-256, and the weights; None: it has none.

    Pictures of the spec are normalised as the weights want it.

    Raises:
        ConfigError: they are not there, or not those of the SHA-256.
        RegistryError: no such version.
        TrackingError: MLflow does not answer.
    """
    wanted = spec.model.initial
    if wanted is None:
        return spec, None
    found = _find(client, wanted, retry_seconds)
    model = spec.model.model_copy(update={"weights": found.settings})
    return dataclasses.replace(spec, model=model, tensors=_normalised(spec.tensors, found)), found


def fitted(spec: TrainingSpec, found: Found | None) -> bytes | None:
    """Return the file of the weights as the network of `spec` takes them, None where it begins at random.

    Raises:
        ConfigError: they are no weights, or do not fit the network; names what is missing, left over, of another shape.
    """
    if found is None:
        return None
    import torch

    from mlspark.models import transfer, weights
    from mlspark.training import network

    with torch.random.fork_rng(devices=[]):
        model = network.with_random_weights(spec)
    result = transfer.fit(model, found.tensors(), found.settings, spec.model.name)
    num_all = len(result.weights) + len(result.random)
    logger.info(
        "initial weights: %d of %d tensors of %s, SHA-256 %s%s",
        len(result.weights), num_all, found.settings.place, found.settings.sha256[:12],
        "".join(f"; {note}" for note in result.notes),
    )  # fmt: skip
    return weights.to_bytes(result.weights)


def keep(spec: TrainingSpec, content: bytes | None) -> None:
    """Write what `fitted` returned to where the ranks read it."""
    if content is not None:
        storage.write_bytes(spec.initial_uri, content)


def _find(client: Client, wanted: InitialWeights, retry_seconds: float) -> Found:
    if wanted.version:
        return _of_version(client, wanted, retry_seconds)
    statistics: dict[str, Statistics] = {}
    if wanted.file:
        content = _read(storage.absolute(wanted.file), wanted.file)
    elif wanted.url:
        content = _downloaded(wanted).read_bytes()
    else:
        content, statistics[""] = _of_package(wanted.package)
    return Found(_checked(wanted, content), content, statistics)


def _read(uri: str, place: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except OSError as error:
        raise ConfigError(
            f"model.weights: {place} cannot be read ({error}); give the URI of a file with weights"
        ) from error


def _checked(wanted: InitialWeights, content: bytes) -> InitialWeights:
    """Return the settings with the file's SHA-256."""
    digest = hashlib.sha256(content).hexdigest()
    if wanted.sha256 and digest != wanted.sha256:
        raise ConfigError(
            f"model.weights: {wanted.place} has the SHA-256 {digest}, model.weights.sha256 says {wanted.sha256}; give the "
            f"file that is meant"
        )
    return wanted.model_copy(update={"sha256": digest})


def _of_version(client: Client, wanted: InitialWeights, retry_seconds: float) -> Found:
    name, which = versions.named(wanted.version, "model.weights.version")
    version = versions.find(client, name, which, retry_seconds=retry_seconds)
    files, place = version.package.files, f"{name}/{version.version}"
    if "weights.safetensors" not in files:
        engine = json.loads(files["model.json"]).get("engine")
        raise ConfigError(f"model.weights.version={place}: no weights of a network (engine {engine}); give a network's")
    tensors = Tensors.from_json(json.loads(files["model.json"])["tensors"])
    content = files["weights.safetensors"]
    pictures = {name: (spec.mean, spec.std) for name, spec in tensors.pictures.items() if spec.mean}
    return Found(_checked(wanted.model_copy(update={"version": place}), content), content, pictures)


def _downloaded(wanted: InitialWeights) -> Path:
    from mlspark.datasets import download

    return download.fetch_file(wanted.url, wanted.sha256)


def _of_package(path: str) -> tuple[bytes, Statistics]:
    """Return weights that timm or torchvision have in their cache here, and the statistics that they were made for."""
    package, _, name = path.partition("/")
    kinds = {"timm": _of_timm, "torchvision": _of_torchvision}
    if package not in kinds or not name:
        raise ConfigError(f"model.weights.package={path}: expected timm/NAME or torchvision/NAME")
    try:
        file, url, statistics = kinds[package](name)
    except ImportError as error:
        raise ConfigError(
            f"model.weights.package={path}: {package} is not installed here ({error}); install mlspark[pictures]"
        ) from error
    if file is None or not file.is_file():
        raise ConfigError(
            f"model.weights.package={path}: not in the cache here{f' ({file})' if file else ''}, and nothing is downloaded "
            f"unasked; they are published as {url}: give that as model.weights.url with its sha256, or put the file there"
        )
    return file.read_bytes(), statistics


def _of_timm(name: str) -> tuple[Path | None, str, Statistics]:
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
    if config is None or not (config.hf_hub_id or config.url):
        close = difflib.get_close_matches(name, timm.list_models(pretrained=True), n=1)
        raise ConfigError(f"model.weights.package=timm/{name}: timm publishes no such weights" + _meant(close))
    statistics = (tuple(config.mean), tuple(config.std))
    if config.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(cached, str):
                return Path(cached), "", statistics
        return None, f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors", statistics
    return _in_hub(str(config.url)), str(config.url), statistics


def _of_torchvision(name: str) -> tuple[Path | None, str, Statistics]:
    from torchvision import models

    try:
        entry = models.get_weight(name) if "." in name else models.get_model_weights(name).DEFAULT
    except (ValueError, KeyError, AttributeError):
        close = difflib.get_close_matches(name, models.list_models(module=models), n=1)
        raise ConfigError(
            f"model.weights.package=torchvision/{name}: torchvision publishes no such weights" + _meant(close)
        ) from None
    preset = entry.transforms()
    return _in_hub(entry.url), entry.url, (tuple(preset.mean), tuple(preset.std))


def _in_hub(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _meant(close: list[str]) -> str:
    return f"; did you mean {close[0]}?" if close else ""


def _normalised(tensors: Tensors, found: Found) -> Tensors:
    """Return the tensors with pictures normalised as the weights want it."""
    settings, notes = found.settings, []
    given: Statistics | None = (settings.mean, settings.std) if settings.mean else None
    if given and not tensors.pictures:
        raise ConfigError("model.weights.mean: the table has no pictures; leave mean and std out")
    specs = []
    for spec in tensors.specs:
        statistics = given or found.statistics.get(spec.name) or found.statistics.get("")
        if spec.picture is not None and statistics is not None:
            picture = _with(spec.picture, statistics, spec.name)
            spec = dataclasses.replace(spec, picture=picture)
            notes.append(f"{spec.name} by mean {_shown(picture.mean)}, std {_shown(picture.std)}")
        specs.append(spec)
    if notes:
        logger.info("initial weights: pictures are normalised as %s wants it: %s", settings.place, "; ".join(notes))
    return dataclasses.replace(tensors, specs=tuple(specs))


def _with(picture: PictureSpec, statistics: Statistics, name: str) -> PictureSpec:
    channels = picture.shape[0]
    if channels == 1:  # as timm does
        statistics = tuple((sum(values) / len(values),) for values in statistics)  # type: ignore[assignment]
    mean, std = statistics
    if len(mean) != channels:
        raise ConfigError(
            f"model.weights: the weights are for pictures of {len(mean)} channels, {name} has {channels}; give "
            f"model.weights.mean and std for {channels}"
        )
    return dataclasses.replace(picture, mean=mean, std=std)


def _shown(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
