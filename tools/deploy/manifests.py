"""The manifests of a kustomization: `resources` and inline JSON 6902 `patches`, the part of kustomize used here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Manifest:
    """One object and the file that it stands in."""

    file: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Return kind/name, as kubectl prints it."""
        return f"{self.body.get('kind')}/{self.body.get('metadata', {}).get('name')}"


def load(folder: Path) -> list[Manifest]:
    """Return the manifests of `folder`'s kustomization, patched.

    Raises:
        ValueError: the kustomization uses something else, or a patch has no target.
    """
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(kustomization) - {"apiVersion", "kind", "namespace", "resources", "patches"}
    if unknown:
        raise ValueError(f"{folder}/kustomization.yaml: {sorted(unknown)} not supported; use resources and patches")
    manifests: list[Manifest] = []
    for entry in kustomization["resources"]:
        path = folder / entry
        if path.is_dir():
            manifests += load(path)
        else:
            manifests += [Manifest(str(path), body) for body in yaml.safe_load_all(path.read_text())]
    for patch in kustomization.get("patches", []):
        target = f"{patch['target']['kind']}/{patch['target']['name']}"
        chosen = [manifest for manifest in manifests if manifest.name == target]
        if not chosen:
            raise ValueError(f"{folder}/kustomization.yaml: no manifest {target} to patch")
        for operation in yaml.safe_load(patch["patch"]):
            _apply(chosen[0].body, operation)
    return manifests


def _apply(body: Any, operation: dict[str, Any]) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in parents:
        body = body[int(part)] if isinstance(body, list) else body[part]
    if operation["op"] not in ("add", "replace") or isinstance(body, list):
        raise ValueError(f"patch {operation['op']} {operation['path']}: only add and replace of a field are supported")
    if operation["op"] == "replace" and last not in body:
        raise ValueError(f"patch {operation['path']}: nothing there to replace")
    body[last] = operation["value"]
