"""What manifests ask of a cluster, added up: requests and limits, in cores, GiB and devices."""

from typing import Any

from kubernetes.utils.quantity import parse_quantity

from tools.deploy.manifests import Manifest

_GIB = 2**30


def sums(manifests: list[Manifest]) -> dict[str, dict[str, float]]:
    """Return the sums of "requests" and "limits" by resource; memory and storage are in GiB.

    Memory of Spark's drivers and executors is the JVM's, without the overhead that Spark adds.
    """
    total: dict[str, dict[str, float]] = {"requests": {}, "limits": {}}
    for manifest in manifests:
        spec = manifest.body.get("spec", {})
        kind = manifest.body["kind"]
        if kind in ("Deployment", "StatefulSet"):
            for container in spec["template"]["spec"]["containers"]:
                _add(total, container["resources"], spec.get("replicas", 1))
        elif kind == "PersistentVolumeClaim":
            _add(total, spec["resources"], 1)
        elif kind == "TrainJob":
            _add(total, spec["trainer"]["resourcesPerNode"], spec["trainer"]["numNodes"])
        elif kind == "SparkApplication":
            for role in (spec["driver"], spec["executor"]):
                # Spark's "2g" is 2 GiB; Kubernetes writes that as 2Gi.
                amounts = {"cpu": role["cores"], "memory": role["memory"].replace("g", "Gi")}
                _add(total, {"requests": amounts, "limits": {"memory": amounts["memory"]}}, role.get("instances", 1))
    return total


def _add(total: dict[str, dict[str, float]], resources: dict[str, Any], times: int) -> None:
    for group, amounts in total.items():
        for name, quantity in resources.get(group, {}).items():
            unit = _GIB if name in ("memory", "storage") else 1
            amounts[name] = amounts.get(name, 0) + times * float(parse_quantity(quantity)) / unit
