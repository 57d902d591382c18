"""What manifests ask of a cluster, added up: requests and limits, in cores, GiB and devices."""

from collections.abc import Mapping
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from tools.deploy.manifests import Manifest
from tools.deploy.pods import pods

_GIB = 2**30
Sums = dict[str, dict[str, float]]
"""requests or limits -> resource -> amount; memory and storage are in GiB."""


def by_object(manifests: list[Manifest]) -> dict[str, Sums]:
    """Return kind/name -> what its pods and its storage ask for, for each object that asks for something.

    Spark's memory is that of the JVM and its overhead, in which Python is. Containers that run before the others of a pod
    ask for no more than those, and are left out.
    """
    made: dict[str, Sums] = {}
    for pod in pods(manifests):
        for container in pod.spec["containers"]:
            _add(made.setdefault(pod.manifest.name, {}), container["resources"], pod.count)
    for manifest in manifests:
        spec = manifest.body.get("spec", {})
        if manifest.kind == "PersistentVolumeClaim":
            _add(made.setdefault(manifest.name, {}), spec["resources"], 1)
        for claim in spec.get("volumeClaimTemplates", []):
            _add(made.setdefault(manifest.name, {}), claim["spec"]["resources"], spec.get("replicas", 1))
    return made


def total(objects: Mapping[str, Sums]) -> Sums:
    """Return the sums of all."""
    made: Sums = {}
    for one in objects.values():
        _add(made, one, 1, unit=1)
    return made


def _add(sums: Sums, resources: Mapping[str, Any], times: int, unit: float = _GIB) -> None:
    for group in ("requests", "limits"):
        for name, quantity in (resources.get(group) or {}).items():
            divisor = unit if name in ("memory", "storage") else 1
            amounts = sums.setdefault(group, {})
            amounts[name] = amounts.get(name, 0) + times * float(parse_quantity(quantity)) / divisor
