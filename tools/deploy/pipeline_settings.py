"""Whether mlspark takes the settings that jobs on the cluster run with: those of the image, ConfigMaps over them, --set."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from tools.deploy import images
from tools.deploy.manifests import Manifest
from tools.deploy.pods import Pod, command, pods

_UNSET = "storage: {root: .mlspark}\nsources: {root: data}\n"
"""What a pod goes by: the variables that say otherwise here are not there."""


def faults(manifests: list[Manifest]) -> list[str]:
    """Return a line for each job with settings that it would refuse, or that its pods could not share."""
    maps = {one.body["metadata"]["name"]: one.body.get("data", {}) for one in manifests if one.kind == "ConfigMap"}
    lines: list[str] = []
    for pod in pods(manifests):
        for container in pod.containers:
            words = command(container)
            if "--config" in words:
                lines += [f"{pod.place}: {line}" for line in _of_job(words, pod, container, maps)]
    return lines


def _of_job(words: list[str], pod: Pod, container: dict[str, Any], maps: dict[str, dict[str, str]]) -> Iterator[str]:
    configs = [words[n + 1] for n, word in enumerate(words) if word == "--config"]
    overrides = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
    with tempfile.TemporaryDirectory() as folder:
        found = {path: _file(path, pod, container, maps, Path(folder)) for path in configs}
        missing = [path for path, file in found.items() if file is None]
        yield from (
            f"--config {path}: neither in the image nor in a ConfigMap that is mounted there" for path in missing
        )
        if missing:
            return
        unset = Path(folder) / "unset.yaml"
        unset.write_text(_UNSET, encoding="utf-8")
        try:
            settings = loading.load([str(file) for file in (unset, *found.values())], overrides)
        except ConfigError as error:
            yield str(error).replace(f"{folder}/", "").replace(f"{images.ROOT}/", "")
            return
    yield from _shared(settings)


def _file(path: str, pod: Pod, container: dict[str, Any], maps: dict[str, dict[str, str]], folder: Path) -> Path | None:
    """Return a local file with what stands at `path` in the container."""
    for mount in container.get("volumeMounts", []):
        name = path.removeprefix(mount["mountPath"]).lstrip("/")
        data = maps.get(pod.volumes[mount["name"]].get("configMap", {}).get("name"), {})
        if path.startswith(f"{mount['mountPath']}/") and name in data:
            file = folder / name
            file.write_text(data[name])
            return file
    return images.source(path)


def _shared(settings: Settings) -> Iterator[str]:
    """Yield what pods cannot share: each has a file system of its own."""
    for name, root in (("storage.root", settings.storage.root), ("sources.root", settings.sources.root)):
        if storage.is_local(root):
            yield f"{name}={root} is a folder of one pod; set it to s3a://BUCKET/FOLDER"
    if images.source(f"{images.HOME}{settings.contract}") is None:
        yield f"contract {settings.contract} is not in the image; see COPY in deploy/images/Dockerfile"
