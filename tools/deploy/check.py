"""What is wrong with manifests: each fault with file, object, path and the likely meaning."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from jsonschema import ValidationError

from tools.deploy.manifests import Manifest
from tools.deploy.schemas import CUSTOM, KINDS, validator


def faults(manifests: list[Manifest]) -> list[str]:
    """Return one line for each fault of the manifests; none for good ones."""
    lines = [line for manifest in manifests for line in _schema_faults(manifest)]
    return lines or [line for manifest in manifests for line in _reference_faults(manifest, manifests)]


def _schema_faults(manifest: Manifest) -> Iterator[str]:
    body = manifest.body
    place = f"{manifest.file}: {manifest.name}"
    schema = validator(str(body.get("apiVersion")), str(body.get("kind")))
    if schema is None:
        known = [f"{version} {kind}" for version, kind in (*KINDS, *CUSTOM)]
        got = f"{body.get('apiVersion')} {body.get('kind')}"
        yield f"{place}: apiVersion, kind: unknown {got!r}{_meant(got, known)}"
        return
    for error in schema.iter_errors(body):
        yield from (f"{place}: {line}" for line in _said(error))


def _said(error: ValidationError) -> Iterator[str]:
    path = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties" and error.validator_value is False:
        known = list(error.schema["properties"])
        for key in set(error.instance) - set(known):
            yield f"{path}.{key}".lstrip(".") + f": unknown field{_meant(key, known)}"
    else:
        yield f"{path or 'the object'}: {error.message}"


def _meant(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f", did you mean {near[0]}?" if near else ""


def _reference_faults(manifest: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    names = {other.name for other in manifests}
    for path, key, value in _walk(manifest.body):
        place = f"{manifest.file}: {manifest.name}: {path}"
        wanted = {"configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap"}.get(key)
        if wanted and f"{wanted}/{value['name']}" not in names:
            yield f"{place}: no {wanted}/{value['name']}{_meant(value['name'], _named(names, wanted))}"
        wanted = {"claimName": "PersistentVolumeClaim", "serviceAccount": "ServiceAccount"}.get(key)
        if wanted and f"{wanted}/{value}" not in names:
            yield f"{place}: no {wanted}/{value}{_meant(value, _named(names, wanted))}"
        if key == "image" and (":" not in value.rpartition("/")[2] or value.endswith(":latest")):
            yield f"{place}: image {value} has no fixed tag"
        if key == "containers":
            yield from _container_faults(place, value, path, manifest.body)


def _container_faults(place: str, containers: list[dict[str, Any]], path: str, body: Any) -> Iterator[str]:
    for part in path.split(".")[:-1]:
        body = body[int(part)] if isinstance(body, list) else body[part]
    pod = body.get("securityContext") or {}
    if not pod.get("runAsNonRoot") or (pod.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield f"{place}: the pod's securityContext needs runAsNonRoot and seccompProfile RuntimeDefault"
    volumes = [volume["name"] for volume in body.get("volumes", [])]
    for container in containers:
        context = container.get("securityContext") or {}
        if not context.get("readOnlyRootFilesystem") or (context.get("capabilities") or {}).get("drop") != ["ALL"]:
            yield f"{place}: {container['name']}: needs readOnlyRootFilesystem and capabilities drop [ALL]"
        if not {"requests", "limits"} <= set(container.get("resources") or {}):
            yield f"{place}: {container['name']}: resources need requests and limits"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{place}: {container['name']}: no volume {mount['name']}{_meant(mount['name'], volumes)}"


def _named(names: set[str], kind: str) -> list[str]:
    return [name.partition("/")[2] for name in names if name.startswith(f"{kind}/")]


def _walk(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        here = f"{path}.{key}".lstrip(".")
        yield here, str(key), inner
        yield from _walk(inner, here)
