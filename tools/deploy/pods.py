"""The pods that manifests ask for, of whatever kind, in the words of Kubernetes' pods."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.deploy.manifests import Manifest

_SPARK_MEMORY = re.compile(r"(\d+)([kmgt])b?", re.IGNORECASE)


@dataclass(frozen=True)
class Pod:
    """A pod of a manifest."""

    manifest: Manifest
    path: str
    """Where it stands in the manifest."""
    spec: Mapping[str, Any]
    count: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Return file, object and path, as faults begin."""
        return f"{self.manifest.place}: {self.path}"

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Return its containers, those of its start first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        """Return its volumes by name."""
        return {volume["name"]: volume for volume in self.spec.get("volumes", [])}


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Yield the pods of all manifests; those of a TrainJob are its runtime's with what the job says in place."""
    runtimes = {one.name: one for one in manifests if one.kind == "TrainingRuntime"}
    for manifest in manifests:
        spec = manifest.body.get("spec", {})
        if manifest.kind in ("Deployment", "StatefulSet"):
            template = spec["template"]
            claims = [{"name": claim["metadata"]["name"]} for claim in spec.get("volumeClaimTemplates", [])]
            pod = template["spec"] | {"volumes": [*template["spec"].get("volumes", []), *claims]}
            yield Pod(manifest, "spec.template", pod, spec.get("replicas", 1), template["metadata"].get("labels", {}))
        elif manifest.kind == "SparkApplication":
            for role in ("driver", "executor"):
                pod = _of_spark(spec, role)
                yield Pod(manifest, f"spec.{role}", pod, spec[role].get("instances", 1))
        elif manifest.kind == "TrainJob" and (runtime := runtimes.get(runtime_of(manifest))):
            yield from _of_train_job(manifest, runtime)


def runtime_of(job: Manifest) -> str:
    """Return kind/name of a TrainJob's runtime."""
    reference = job.body["spec"]["runtimeRef"]
    return f"{reference.get('kind', 'ClusterTrainingRuntime')}/{reference['name']}"


def command(container: Mapping[str, Any]) -> list[str]:
    """Return what a container runs: command and arguments."""
    return [*container.get("command", []), *container.get("args", [])]


def _of_spark(spec: Mapping[str, Any], role: str) -> dict[str, Any]:
    own = spec[role]
    try:
        megabytes = spark_megabytes(own["memory"]) + spark_megabytes(own.get("memoryOverhead", "0m"))
    except ValueError:  # which `confinement` names
        megabytes = 0
    requests = {"cpu": own.get("coreRequest", own["cores"]), "memory": f"{megabytes}Mi"}
    limits = {"memory": f"{megabytes}Mi"} | ({"cpu": own["coreLimit"]} if "coreLimit" in own else {})
    application = [spec["mainApplicationFile"].removeprefix("local://"), *spec.get("arguments", [])]
    container = {
        "name": role,
        "image": own.get("image", spec["image"]),
        "command": application if role == "driver" else [],
        "resources": {"requests": requests, "limits": limits},
        **{key: own[key] for key in ("env", "envFrom", "securityContext", "volumeMounts") if key in own},
    }
    pod = {"containers": [container], "volumes": spec.get("volumes", [])}
    if "podSecurityContext" in own:
        pod["securityContext"] = own["podSecurityContext"]
    return pod | {"serviceAccountName": own.get("serviceAccount"), "initContainers": own.get("initContainers", [])}


def spark_megabytes(text: str) -> int:
    """Return the MiB of Spark's "2g", which are those that Kubernetes writes as 2Gi.

    Raises:
        ValueError: it is none of Spark's sizes.
    """
    match = _SPARK_MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no size of Spark's, like 512m or 2g")
    return int(int(match[1]) * {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024**2}[match[2].lower()])


def _of_train_job(job: Manifest, runtime: Manifest) -> Iterator[Pod]:
    trainer = job.body["spec"].get("trainer", {})
    replaced = {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
    for number, replicated in enumerate(runtime.body["spec"]["template"]["spec"]["replicatedJobs"]):
        pod = replicated["template"]["spec"]["template"]["spec"]
        containers = [
            container
            | replaced
            | {"resources": trainer.get("resourcesPerNode", container.get("resources"))}
            | {"env": [*container.get("env", []), *trainer.get("env", [])]}
            for container in pod["containers"]
        ]
        path = f"spec.trainer in {runtime.name}: spec.template.spec.replicatedJobs.{number}"
        yield Pod(job, path, pod | {"containers": containers}, trainer.get("numNodes", 1))
