"""The manifests in deploy/ are those of the published API models, and a typo in them is named."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from tools.deploy.check import faults
from tools.deploy.manifests import Manifest, load
from tools.deploy.sums import sums

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDERS = [DEPLOY / "base", DEPLOY / "overlays/gpu"]
# Keys that people choose.
FREE = {"data", "labels", "matchLabels", "selector", "requests", "limits"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_manifests_are_whole(folder: Path) -> None:
    assert faults(load(folder)) == []


def fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    here: list[tuple[Any, ...]] = []
    for key, inner in pairs:
        if isinstance(key, str) and len(key) > 4 and len(path) > 0:
            here.append((*path, key))
        if key not in FREE:
            here += fields(inner, (*path, key))
    return here


@pytest.mark.parametrize("seed", range(30))
def test_typo_is_named_with_file_path_and_meaning(seed: int) -> None:
    random_ = random.Random(seed)
    manifests = [Manifest(one.file, copy.deepcopy(one.body)) for one in load(FOLDERS[1])]
    manifest = random_.choice([one for one in manifests if fields(one.body)])
    *parents, key = random_.choice(fields(manifest.body))
    body: Any = manifest.body
    for part in parents:
        body = body[part]
    at = random_.randrange(1, len(key))
    typo = key[:at] + key[at + 1 :]  # a letter is left out
    body[typo] = body.pop(key)
    path = ".".join(str(part) for part in (*parents, typo))
    assert f"{manifest.file}: {manifest.name}: {path}: unknown field, did you mean {key}?" in faults([manifest])


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("Deployment", ("spec", "replicas"), "one", "spec.replicas: 'one' is not of type 'integer'"),
        ("TrainJob", ("spec", "trainer", "numNodes"), "one", "spec.trainer.numNodes: 'one' is not of type 'integer'"),
        ("SparkApplication", ("spec", "image"), "mlspark", "spec.image: image mlspark has no fixed tag"),
        ("SparkApplication", ("spec", "driver", "serviceAccount"), "spark-drver", "did you mean spark-driver?"),
        ("Deployment", ("spec", "template", "spec", "securityContext"), {}, "needs runAsNonRoot"),
    ],
)
def test_fault_is_named(kind: str, path: tuple[str, ...], value: Any, said: str) -> None:
    manifests = load(FOLDERS[0])
    body = next(one.body for one in manifests if one.body["kind"] == kind)
    for part in path[:-1]:
        body = body[part]
    body[path[-1]] = value
    assert any(said in line for line in faults(manifests))


def test_field_that_is_required_is_missed() -> None:
    manifests = load(FOLDERS[0])
    del next(one.body for one in manifests if one.body["kind"] == "Deployment")["spec"]["selector"]
    assert any("spec: 'selector' is a required property" in line for line in faults(manifests))


def test_sums_of_the_gpu_overlay() -> None:
    # cpu: mlflow 0.5 (limit 2), driver 1, executors 2 x 2, train 4; memory: 1 (2), 2, 2 x 4, 16.
    assert sums(load(FOLDERS[1])) == {
        "requests": {"cpu": 9.5, "memory": 27, "storage": 20},
        "limits": {"cpu": 6, "memory": 28, "nvidia.com/gpu": 1},
    }
