"""The manifests in deploy/ fit the published API models and each other, and a typo in them is named."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tools.deploy.__main__ import app
from tools.deploy.check import check, faults
from tools.deploy.manifests import Manifest, load, secrets
from tools.deploy.pods import pods
from tools.deploy.sums import by_object, total

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FOLDERS = [DEPLOY / "base", DEPLOY / "overlays/gpu", DEPLOY / "overlays/small"]
# Keys that people choose.
FREE = {"annotations", "data", "labels", "limits", "matchLabels", "requests", "selector", "stringData"}
TYPOS = 48


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_manifests_are_whole(folder: Path) -> None:
    assert check(folder) == []


def fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    here: list[tuple[Any, ...]] = []
    for key, inner in pairs:
        if isinstance(key, str) and len(key) > 4 and len(path) > 0:
            here.append((*path, key))
        if key not in FREE:
            here += fields(inner, (*path, key))
    return here


def test_typos_below_are_in_every_kind_of_manifest() -> None:
    kinds = [one.kind for one in (*load(FOLDERS[1]), *secrets(FOLDERS[1])) if fields(one.body)]
    assert len(kinds) <= TYPOS
    assert {"Deployment", "StatefulSet", "SparkApplication", "TrainJob", "TrainingRuntime", "NetworkPolicy"} <= set(
        kinds
    )


@pytest.mark.parametrize("seed", range(TYPOS))
def test_typo_is_named_with_file_path_and_meaning(seed: int) -> None:
    manifests = [one for one in (*load(FOLDERS[1]), *secrets(FOLDERS[1])) if fields(one.body)]
    manifest = manifests[seed % len(manifests)]
    random_ = random.Random(seed)
    *parents, key = random_.choice(fields(manifest.body))
    body: Any = manifest.body
    for part in parents:
        body = body[part]
    at = random_.randrange(1, len(key))
    typo = key[:at] + key[at + 1 :]  # a letter is left out
    body[typo] = body.pop(key)
    path = ".".join(str(part) for part in (*parents, typo))
    assert f"{manifest.file}: {manifest.name}: {path}: unknown field, did you mean {key}?" in faults([manifest], [])


def at(name: str, path: str, value: Any = None) -> Callable[[list[Manifest]], None]:
    """A change of one field; None takes it out."""

    def change(manifests: list[Manifest]) -> None:
        body: Any = next(one.body for one in manifests if one.name == name)
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            body = body[part]
        if value is None:
            del body[last]
        else:
            body[last] = value

    return change


def first(name: str) -> Callable[[list[Manifest]], None]:
    """A change of the order: one object before all others."""
    return lambda manifests: manifests.sort(key=lambda one: one.name != name)


def cluster_yaml(text: str) -> Callable[[list[Manifest]], None]:
    return at("ConfigMap/mlspark", "data", {"cluster.yaml": text})


MLFLOW, POSTGRES, STORAGE = "Deployment/mlflow", "StatefulSet/postgres", "StatefulSet/storage"
PREPARE, SCORE = "SparkApplication/prepare", "SparkApplication/score"
TRAIN, RUNTIME = "TrainJob/train", "TrainingRuntime/mlspark"
POD, CONTAINER = "spec.template.spec", "spec.template.spec.containers.0"
NODE = "spec.template.spec.replicatedJobs.0.template.spec.template.spec"
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # Types and what must be there.
        (at(MLFLOW, "spec.replicas", "one"), "spec.replicas: 'one' is not of type 'integer'"),
        (at(TRAIN, "spec.trainer.numNodes", "one"), "spec.trainer.numNodes: 'one' is not of type 'integer'"),
        (at(MLFLOW, "spec.selector"), "spec: 'selector' is a required property"),
        # What is called by name.
        (at(PREPARE, "spec.driver.serviceAccount", "spark-drver"), "did you mean spark-driver?"),
        (at(SCORE, "spec.driver.envFrom.1.secretRef.name", "storge"),
         "driver: envFrom.1.secretRef: no Secret/storge; secrets.example.yaml has none, did you mean storage?"),
        (at(SCORE, "spec.driver.envFrom.0.configMapRef.name", "storge"), "no ConfigMap/storge, did you"),
        (at(MLFLOW, f"{CONTAINER}.env.4.valueFrom.secretKeyRef.key", "pasword"),
         "mlflow: env.4.valueFrom.secretKeyRef: Secret/postgres has no key pasword, did you mean password?"),
        (at(MLFLOW, f"{POD}.volumes.0.configMap.name", "mlfow"), "volume settings: no ConfigMap/mlfow, did you"),
        (at(MLFLOW, f"{CONTAINER}.volumeMounts.1.name", "tmpp"), "mlflow: no volume tmpp, did you mean tmp?"),
        (at(MLFLOW, f"{CONTAINER}.livenessProbe.httpGet.port", "htp"),
         "livenessProbe.httpGet.port: no port htp, did you mean http?"),
        (at("Service/mlflow", "spec.ports.0.targetPort", "htp"),
         "spec.ports.0: no container listens on htp; there are ['http']"),
        (at("Service/mlflow", "spec.selector", {"app": "mlfow"}),
         "spec.selector {'app': 'mlfow'}: are the labels of no pod"),
        (at(MLFLOW, "spec.selector.matchLabels", {"app": "mlfow"}), "is not a part of the template's labels"),
        (at(POSTGRES, "spec.serviceName", "postgre"), "spec.serviceName: no Service/postgre, did you mean postgres?"),
        (at("NetworkPolicy/postgres", "spec.ingress.0.ports.0.port", 5433), "ports.0: no container listens on 5433"),
        (at("NetworkPolicy/postgres", "spec.ingress.0.from.0.podSelector.matchLabels", {"app": "mlfow"}),
         "{'app': 'mlfow'} are the labels of no pod"),
        (at("RoleBinding/spark-driver", "roleRef.name", "driver"), "roleRef: no Role/driver"),
        (at(TRAIN, "spec.runtimeRef.name", "mlsparc"),
         "runtimeRef: no TrainingRuntime/mlsparc, did you mean mlspark?"),
        (at("ConfigMap/tracking", "data.MLFLOW_TRACKING_URI", "http://mlfow:5000"),
         "no Service/mlfow, did you mean mlflow?"),
        (at("ConfigMap/storage", "data.AWS_ENDPOINT_URL", "http://storage:7071"),
         "Service/storage has no port 7071, but [7070]"),
        (first(TRAIN), "TrainJob/train: stands before TrainingRuntime/mlspark, and would be refused; put it behind"),
        # Quantities and images.
        (at(MLFLOW, f"{CONTAINER}.resources.requests.memory", "1GB"), "requests.memory: '1GB' is no quantity"),
        (at(MLFLOW, f"{CONTAINER}.resources.requests.memory", "3Gi"), "memory requests 3Gi, over the limit of 2Gi"),
        (at(STORAGE, "spec.volumeClaimTemplates.0.spec.resources.requests.storage", "100GB"), "is no quantity"),
        (at(PREPARE, "spec.driver.memory", "2Gi"), "spec.driver.memory: '2Gi' is no size of Spark's"),
        (at(TRAIN, "spec.trainer.resourcesPerNode.limits.cpu", "3"), "cpu requests 4, over the limit of 3"),
        (at(MLFLOW, f"{CONTAINER}.resources.limits.memory"), "resources.limits need memory"),
        (at(SCORE, "spec.image", "registry.example.com/mlspark"), "has no fixed tag"),
        (at(SCORE, "spec.image", "registry.example.com/mlspark:latest"), "has no fixed tag"),
        (at(POSTGRES, f"{CONTAINER}.image", "docker.io/library/postgres:17.11"), "postgres:17.11 has no digest"),
        # Pods are confined, of whatever kind.
        (at(MLFLOW, f"{POD}.securityContext", {}), "mlflow: securityContext needs runAsNonRoot true"),
        (at(PREPARE, "spec.driver.podSecurityContext.seccompProfile"), "driver: securityContext needs seccomp"),
        (at(PREPARE, "spec.executor.securityContext", {**CONFINED, "allowPrivilegeEscalation": True}),
         "executor: securityContext needs allowPrivilegeEscalation false"),
        (at(SCORE, "spec.driver.podSecurityContext.runAsUser", 0), "needs runAsUser, a number that is not 0"),
        (at(RUNTIME, f"{NODE}.containers.0.securityContext", {**CONFINED, "readOnlyRootFilesystem": False}),
         "TrainJob/train: spec.trainer in TrainingRuntime/mlspark"),
        (at(RUNTIME, f"{NODE}.securityContext.runAsNonRoot"), "node: securityContext needs runAsNonRoot true"),
        (at(RUNTIME, f"{NODE}.volumes.1", {"name": "tmp", "hostPath": {"path": "/tmp"}}), "hostPath is not allowed"),
        (at(STORAGE, f"{POD}.hostNetwork", True), "hostNetwork is not allowed"),
        (at(STORAGE, f"{POD}.initContainers.0.securityContext", {**CONFINED, "capabilities": {}}),
         "buckets: securityContext needs capabilities drop [ALL]"),
        (at(STORAGE, f"{POD}.automountServiceAccountToken"), "needs automountServiceAccountToken false"),
        (at(MLFLOW, f"{POD}.securityContext.runAsUser", 1000), "runs as 1000, and the image's user is 10001"),
        # Secrets stand nowhere.
        (at(MLFLOW, f"{CONTAINER}.env.4", {"name": "PGPASSWORD", "value": "hunter2hunter2"}), "secret as text"),
        (at("ConfigMap/storage", "data.AWS_SECRET_ACCESS_KEY", "hunter2hunter2"),
         "AWS_SECRET_ACCESS_KEY is a secret as text"),
        (at(MLFLOW, f"{CONTAINER}.env.0.value", "postgresql://a:hunter2@postgres:5432/b"), "looks like a secret"),
        # Settings of the pipeline, by mlspark's own code.
        (cluster_yaml("storage: {rooot: s3a://mlspark/home}"),
         "prepare: spec.driver: cluster.yaml: storage.rooot: unknown key, did you mean root?"),
        (cluster_yaml("storage: {root: home}"),
         "sources.root=data is a folder of one pod; set it to s3a://BUCKET/FOLDER"),
        (at("ConfigMap/mlspark", "data", {"clster.yaml": ""}),
         "--config /etc/mlspark/cluster.yaml: neither in the image nor"),
        (at(SCORE, "spec.arguments.5", "scoring.modl=challenger"), "scoring.modl: unknown key, did you mean model"),
        (at(SCORE, "spec.arguments.1", "/opt/mlspark/conf/census.yml"), "census.yml is not in the image"),
        (at(SCORE, "spec.mainApplicationFile", "local:///opt/mlspark/jobs/scor.py"), "scor.py is not in the"),
        (at(MLFLOW, f"{CONTAINER}.args.0", "mlfow"), "mlflow: mlfow is no program of the image, did you mean mlflow?"),
        (at(TRAIN, "spec.trainer.command.1", "/opt/mlspark/job/train.py"), "job/train.py is not in the image"),
    ],
)  # fmt: skip
def test_fault_is_named(change: Callable[[list[Manifest]], None], said: str) -> None:
    manifests = load(FOLDERS[0])
    change(manifests)
    lines = faults(manifests, secrets(FOLDERS[0]))
    assert any(said in line for line in lines), lines


def test_command_says_what_is_wrong_and_what_is_asked_for(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "base", tmp_path / "base")
    good = CliRunner().invoke(app, ["check", str(tmp_path / "base")])
    assert good.exit_code == 0, good.stderr
    assert good.stdout.splitlines()[0] == f"{tmp_path / 'base'}: 22 manifests are good"
    assert "TrainJob/train: requests cpu 4, memory 16; limits cpu 4, memory 16" in good.stdout.splitlines()
    file = tmp_path / "base/mlflow.yaml"
    file.write_text(file.read_text().replace("replicas:", "replica:"))
    bad = CliRunner().invoke(app, ["check", str(tmp_path / "base")])
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert bad.stderr == f"{file}: Deployment/mlflow: spec.replica: unknown field, did you mean replicas?\n"


def test_own_image_is_known_in_any_registry() -> None:
    manifests = load(FOLDERS[0])
    at(SCORE, "spec.image", "10.0.0.1:5000/team/mlspark:0.2.0")(manifests)
    assert faults(manifests, secrets(FOLDERS[0])) == []
    at(SCORE, "spec.image", "10.0.0.1:5000/team/spark:0.2.0")(manifests)
    assert any("spark:0.2.0 has no digest" in line for line in faults(manifests, secrets(FOLDERS[0])))


def test_sums_of_the_overlays() -> None:
    # cpu: postgres 0.25 (limit 1), storage 0.25 (2), mlflow 0.5 (2); prepare and score 1 (2) + 2 x 2 (2) each; train 4.
    # GiB: 0.5 (1), 0.5 (1), 1 (2); drivers 2 + 1, executors 2 x (4 + 2); train 16. Volumes: 10, 100.
    assert total(by_object(load(FOLDERS[1]))) == {
        "requests": {"cpu": 15, "memory": 48, "storage": 110},
        "limits": {"cpu": 21, "memory": 50, "nvidia.com/gpu": 1},
    }
    small = by_object(load(FOLDERS[2]))
    servers = {name: one for name, one in small.items() if not name.startswith(("SparkApplication", "TrainJob"))}
    largest = max(one["requests"]["memory"] for name, one in small.items() if name not in servers)
    assert total(servers)["requests"]["memory"] + largest <= 8  # GiB, as the overlay's first line says
    assert total(servers)["requests"]["cpu"] + max(one["requests"]["cpu"] for one in small.values()) <= 4


def test_aliases_of_yaml_are_objects_of_their_own() -> None:
    [storage] = [pod for pod in pods(load(FOLDERS[0])) if pod.manifest.name == "StatefulSet/storage"]
    first, second = storage.containers
    assert first["resources"] == second["resources"]
    assert first["resources"] is not second["resources"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize_puts_the_same_together(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=120, check=True)
    theirs = {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(done.stdout)}
    ours = {one.name: json.loads(json.dumps(one.body)) for one in load(folder)}
    assert list(ours) == list(theirs)  # in this order, too
    for name, body in ours.items():
        if name != "Namespace/mlspark":
            assert theirs[name]["metadata"].pop("namespace") == "mlspark"
        if name.startswith("RoleBinding"):
            assert theirs[name]["subjects"][0].pop("namespace") == "mlspark"
        assert theirs[name] == body, name
