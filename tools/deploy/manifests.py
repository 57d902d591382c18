"""The manifests of a kustomization: `resources` and inline JSON 6902 `patches`, the part of kustomize used here."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

SECRETS = "secrets.example.yaml"
"""File beside a kustomization that says which secrets have to be there; it is no resource."""


@dataclass(frozen=True)
class Manifest:
    """One object and the file that it stands in."""

    file: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """Return its kind, "Deployment"."""
        return str(self.body.get("kind"))

    @property
    def name(self) -> str:
        """Return kind/name, as kubectl prints it."""
        return f"{self.kind}/{(self.body.get('metadata') or {}).get('name')}"

    @property
    def place(self) -> str:
        """Return file and name, as faults begin."""
        return f"{self.file}: {self.name}"


def load(folder: Path) -> list[Manifest]:
    """Return the manifests of `folder`'s kustomization, patched.

    Raises:
        ValueError: the kustomization uses something else, or a patch has no target.
    """
    kustomization = _kustomization(folder)
    manifests: list[Manifest] = []
    for entry in kustomization["resources"]:
        path = folder / entry
        manifests += load(path) if path.is_dir() else read(path)
    for patch in kustomization.get("patches", []):
        target = f"{patch['target']['kind']}/{patch['target']['name']}"
        chosen = [manifest for manifest in manifests if manifest.name == target]
        if not chosen:
            raise ValueError(f"{folder}/kustomization.yaml: no manifest {target} to patch")
        for operation in yaml.safe_load(patch["patch"]):
            _apply(chosen[0].body, operation)
    return manifests


def secrets(folder: Path) -> list[Manifest]:
    """Return the secrets that `folder`'s kustomization, and those it builds on, say have to be there; without values."""
    named = read(folder / SECRETS) if (folder / SECRETS).exists() else []
    bases = [folder / entry for entry in _kustomization(folder)["resources"] if (folder / entry).is_dir()]
    return [*named, *(secret for base in bases for secret in secrets(base))]


def read(path: Path) -> list[Manifest]:
    """Return the objects of a file; what is an alias in YAML is an object of its own."""
    return [
        Manifest(os.path.normpath(path), json.loads(json.dumps(body)))
        for body in yaml.safe_load_all(path.read_text())
        if body
    ]


def walk(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (path, last key, value) of all that is in `value`."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        here = f"{path}.{key}".lstrip(".")
        yield here, str(key), inner
        yield from walk(inner, here)


def meant(word: str, known: Iterable[str]) -> str:
    """Return the end of a message: which of `known` was probably meant."""
    near = get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def _kustomization(folder: Path) -> dict[str, Any]:
    kustomization: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(kustomization) - {"apiVersion", "kind", "namespace", "resources", "patches", "sortOptions"}
    if unknown:
        raise ValueError(f"{folder}/kustomization.yaml: {sorted(unknown)} not supported; use resources and patches")
    if kustomization.get("sortOptions") != {"order": "fifo"}:
        raise ValueError(f"{folder}/kustomization.yaml: needs sortOptions: {{order: fifo}}, or kustomize sorts by kind")
    return kustomization


def _apply(body: Any, operation: dict[str, Any]) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in parents:
        body = body[int(part)] if isinstance(body, list) else body[part]
    if operation["op"] not in ("add", "replace") or isinstance(body, list):
        raise ValueError(f"patch {operation['op']} {operation['path']}: only add and replace of a field are supported")
    if operation["op"] == "replace" and last not in body:
        raise ValueError(f"patch {operation['path']}: nothing there to replace")
    body[last] = operation["value"]
