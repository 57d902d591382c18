"""What manifests call by name: whether it is there, and is what they take it for."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tools.deploy.manifests import SECRETS, Manifest, meant, walk
from tools.deploy.pods import Pod, pods, runtime_of

# The host of an address, if it is a name of this namespace: postgresql://mlflow@postgres:5432/mlflow
_ADDRESS = re.compile(r"(?:://|@)(?!sha256:)([a-z][a-z0-9-]*):(\d+)(?![\d.])")
_IN_FILES = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}
_OF_VOLUMES = {"configMap": ("ConfigMap", "name"), "secret": ("Secret", "secretName"),
               "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName")}  # fmt: skip


def faults(manifests: list[Manifest], secrets: list[Manifest]) -> Iterator[str]:
    """Yield a line for each name that leads nowhere."""
    known = {one.name: one.body for one in (*manifests, *secrets)}
    for first, second in ((a, b) for n, a in enumerate(manifests) for b in manifests[:n] if a.name == b.name):
        yield f"{first.place}: stands in {second.file}, too"
    for number, manifest in enumerate(manifests):
        if manifest.kind == "TrainJob" and runtime_of(manifest) in [later.name for later in manifests[number:]]:
            yield f"{manifest.place}: stands before {runtime_of(manifest)}, and would be refused; put it behind"
    all_pods = list(pods(manifests))
    for manifest in manifests:
        yield from _addresses(manifest, manifests)
        yield from _own_references(manifest, known)
        yield from _selections(manifest, all_pods)
    for pod in all_pods:
        yield from _pod_references(pod, known)


def _lacks(name: str, known: Mapping[str, Any]) -> str:
    """Return what is said of an object that is not there; empty if it is."""
    if name in known:
        return ""
    where = f"; {SECRETS} has none" if name.startswith("Secret/") else ""
    kind, _, own = name.partition("/")
    return f"no {name}{where}" + meant(
        own, [other.partition("/")[2] for other in known if other.startswith(f"{kind}/")]
    )


def _own_references(manifest: Manifest, known: Mapping[str, Any]) -> Iterator[str]:
    spec, body = manifest.body.get("spec") or {}, manifest.body
    wanted: list[tuple[str, str]] = []
    if manifest.kind == "StatefulSet":
        wanted.append(("spec.serviceName", f"Service/{spec['serviceName']}"))
    if manifest.kind == "TrainJob":
        wanted.append(("spec.runtimeRef", runtime_of(manifest)))
    if manifest.kind == "RoleBinding":
        wanted.append(("roleRef", f"{body['roleRef']['kind']}/{body['roleRef']['name']}"))
        subjects = enumerate(body.get("subjects", []))
        wanted += [(f"subjects.{n}", f"{subject['kind']}/{subject['name']}") for n, subject in subjects]
    for path, name in wanted:
        if said := _lacks(name, known):
            yield f"{manifest.place}: {path}: {said}"


def _pod_references(pod: Pod, known: Mapping[str, Any]) -> Iterator[str]:
    if (account := pod.spec.get("serviceAccountName")) and (said := _lacks(f"ServiceAccount/{account}", known)):
        yield f"{pod.place}: serviceAccount: {said}"
    for name, volume in pod.volumes.items():
        for source, (kind, key) in _OF_VOLUMES.items():
            if source in volume and (said := _lacks(f"{kind}/{volume[source].get(key)}", known)):
                yield f"{pod.place}: volume {name}: {said}"
    for container in pod.containers:
        place = f"{pod.place}: {container['name']}"
        volumes = list(pod.volumes)
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{place}: no volume {mount['name']}" + meant(mount["name"], volumes)
        yield from _environment(place, container, known)
        ports = {str(port.get("name")) for port in container.get("ports", [])}
        for path, key, value in walk(container):
            if key == "port" and isinstance(value, str) and value not in ports:
                yield f"{place}: {path}: no port {value}" + meant(value, sorted(ports))


def _environment(place: str, container: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    for path, key, value in walk({name: container.get(name, []) for name in ("env", "envFrom")}):
        if key not in _IN_FILES:
            continue
        name = f"{_IN_FILES[key]}/{value.get('name')}"
        if said := _lacks(name, known):
            yield f"{place}: {path}: {said}"
        elif "key" in value:
            keys = list(known[name].get("data") or known[name].get("stringData") or {})
            if value["key"] not in keys:
                yield f"{place}: {path}: {name} has no key {value['key']}" + meant(value["key"], keys)


def _selections(manifest: Manifest, all_pods: list[Pod]) -> Iterator[str]:
    """Yield what is wrong with labels and ports by which a manifest finds pods."""
    spec = manifest.body.get("spec") or {}
    if manifest.kind in ("Deployment", "StatefulSet"):
        own = spec["template"]["metadata"].get("labels", {})
        if not _selected(spec["selector"].get("matchLabels", {}), own):
            yield f"{manifest.place}: spec.selector: is not a part of the template's labels {own}"
    if manifest.kind == "Service":
        chosen = [pod for pod in all_pods if _selected(spec.get("selector", {}), pod.labels)]
        ports = [(f"spec.ports.{n}", port.get("targetPort", port["port"])) for n, port in enumerate(spec["ports"])]
        yield from _reached(f"{manifest.place}", f"spec.selector {spec.get('selector')}", chosen, ports)
    if manifest.kind == "NetworkPolicy":
        labels = spec["podSelector"].get("matchLabels", {})
        chosen = [pod for pod in all_pods if _selected(labels, pod.labels)]
        rules = enumerate(spec.get("ingress", []))
        ports = [
            (f"spec.ingress.{n}.ports.{m}", port["port"])
            for n, rule in rules
            for m, port in enumerate(rule.get("ports", []))
        ]
        yield from _reached(f"{manifest.place}", f"spec.podSelector {labels}", chosen, ports)
        for path, key, value in walk(spec.get("ingress", [])):
            if key == "podSelector" and not any(
                _selected(value.get("matchLabels", {}), pod.labels) for pod in all_pods
            ):
                yield f"{manifest.place}: spec.ingress.{path}: {value['matchLabels']} are the labels of no pod"


def _reached(place: str, selector: str, chosen: list[Pod], ports: list[tuple[str, Any]]) -> Iterator[str]:
    if not chosen:
        yield f"{place}: {selector}: are the labels of no pod"
        return
    listening = [port for pod in chosen for container in pod.containers for port in container.get("ports", [])]
    names = {str(port.get("name")) for port in listening}
    numbers = {port["containerPort"] for port in listening}
    for path, port in ports:
        if port not in (names if isinstance(port, str) else numbers):
            yield f"{place}: {path}: no container listens on {port}; there are {sorted(names)}, {sorted(numbers)}"


def _selected(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def _addresses(manifest: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    services = {
        one.name.split("/")[1]: {port["port"] for port in one.body["spec"]["ports"]}
        for one in manifests
        if one.kind == "Service"
    }
    for path, _, value in walk(manifest.body):
        for host, port in _ADDRESS.findall(value) if isinstance(value, str) else ():
            if host not in services:
                yield f"{manifest.place}: {path}: no Service/{host}" + meant(host, sorted(services))
            elif int(port) not in services[host]:
                yield f"{manifest.place}: {path}: Service/{host} has no port {port}, but {sorted(services[host])}"
