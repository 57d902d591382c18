"""Whether pods are confined as the Pod Security Standard "restricted" asks, and say what they need and from which image."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from mlspark import credentials
from tools.deploy.manifests import Manifest, walk
from tools.deploy.pods import Pod, pods, spark_megabytes

_OWN_IMAGE = re.compile(r"(.*/)?mlspark[:@].*")
_IMAGE = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)+:(?P<tag>[\w.-]+)(?P<digest>@sha256:[0-9a-f]{64})?")
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "name", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip


def faults(manifests: list[Manifest]) -> Iterator[str]:
    """Yield a line for each pod, container, quantity or image that is not as it must be."""
    for manifest in manifests:
        yield from _texts(manifest)
        yield from _quantities(manifest)
    for pod in pods(manifests):
        yield from _pod(pod)
        for container in pod.containers:
            place = f"{pod.place}: {container['name']}"
            yield from _container(place, container, pod.spec)
            yield from _resources(place, container.get("resources") or {})


def _pod(pod: Pod) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield f"{pod.place}: {key} is not allowed"
    for name, volume in pod.volumes.items():
        for source in volume.keys() - _VOLUMES:
            yield f"{pod.place}: volume {name}: {source} is not allowed"
    if pod.spec.get("automountServiceAccountToken", True) and not pod.spec.get("serviceAccountName"):
        yield f"{pod.place}: needs automountServiceAccountToken false, or a serviceAccount that it uses"


def _container(place: str, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own = container.get("securityContext") or {}
    both = (pod.get("securityContext") or {}) | own
    capabilities = own.get("capabilities") or {}
    needed = {
        "runAsNonRoot true": both.get("runAsNonRoot") is True,
        "runAsUser, a number that is not 0": both.get("runAsUser", 0) != 0,
        "seccompProfile RuntimeDefault": (both.get("seccompProfile") or {}).get("type") == "RuntimeDefault",
        "allowPrivilegeEscalation false": own.get("allowPrivilegeEscalation") is False,
        "readOnlyRootFilesystem true": own.get("readOnlyRootFilesystem") is True,
        "capabilities drop [ALL]": capabilities.get("drop") == ["ALL"] and not capabilities.get("add"),
        "privileged false": not own.get("privileged"),
    }
    for what, is_so in needed.items():
        if not is_so:
            yield f"{place}: securityContext needs {what}"
    for port in container.get("ports", []):
        if "hostPort" in port:
            yield f"{place}: hostPort is not allowed"
    yield from _image(place, container.get("image"))


def _image(place: str, image: str | None) -> Iterator[str]:
    match = _IMAGE.fullmatch(image or "")
    if match is None or match["tag"] == "latest":
        yield f"{place}: image {image} has no fixed tag; write REGISTRY/NAME:TAG"
    elif not match["digest"] and not is_own(image):
        yield f"{place}: image {image} has no digest; write {image}@sha256:..."


def is_own(image: str | None) -> bool:
    """Return whether an image is the one of deploy/images, which has no digest before it is built."""
    return _OWN_IMAGE.fullmatch(image or "") is not None


def _resources(place: str, resources: Mapping[str, Any]) -> Iterator[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in ("cpu", "memory"):
        for group, amounts in (("requests", requests), ("limits", limits)):
            if name not in amounts:
                yield f"{place}: resources.{group} need {name}"
    for name in requests.keys() & limits.keys():
        are_numbers = _is_quantity(requests[name]) and _is_quantity(limits[name])
        if are_numbers and parse_quantity(requests[name]) > parse_quantity(limits[name]):
            yield f"{place}: resources: {name} requests {requests[name]}, over the limit of {limits[name]}"


def _quantities(manifest: Manifest) -> Iterator[str]:
    for path, key, value in walk(manifest.body):
        if key in ("requests", "limits") and isinstance(value, dict):
            wrong = [name for name, amount in value.items() if not _is_quantity(amount)]
            yield from (
                f"{manifest.place}: {path}.{name}: {value[name]!r} is no quantity, like 500m or 1Gi" for name in wrong
            )
        if key in ("sizeLimit", "coreLimit", "coreRequest") and not _is_quantity(value):
            yield f"{manifest.place}: {path}: {value!r} is no quantity, like 500m or 1Gi"
        if manifest.kind == "SparkApplication" and key in ("memory", "memoryOverhead"):
            try:
                spark_megabytes(value)
            except ValueError as error:
                yield f"{manifest.place}: {path}: {error}"


def _is_quantity(value: Any) -> bool:
    try:
        return bool(parse_quantity(value) >= 0)
    except ValueError:
        return False


def _texts(manifest: Manifest) -> Iterator[str]:
    """Yield where a secret stands as text: it is named by reference only."""
    if manifest.kind == "Secret":
        yield f"{manifest.place}: is applied with the rest; make secrets with kubectl, so that none is in a file"
    texts = {f"data.{name}": (name, value) for name, value in (manifest.body.get("data") or {}).items()}
    for path, key, value in walk(manifest.body):
        if key == "env" and isinstance(value, list):
            texts |= {f"{path}.{n}": (one["name"], one.get("value")) for n, one in enumerate(value)}
        if isinstance(value, str) and (form := credentials.secret_in(value)):
            yield f"{manifest.place}: {path}: holds what looks like a secret ({form}); use secretKeyRef"
    for path, (name, value) in texts.items():
        if value and credentials.is_secret_name(name):
            yield f"{manifest.place}: {path}: {name} is a secret as text; use secretKeyRef"
