"""Where a job's stages run: the command line of each, a list that no shell reads. Runs anywhere."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlspark import credentials
from mlspark.errors import ConfigError
from mlspark.queue.job import Stage

STAGES = ("prepare", "train", "promote", "score", "monitor")
"""Jobs of jobs/ in the order in which they make sense."""
PIPELINE = ("prepare", "train", "promote", "score")
"""Those of the pipeline of Kubeflow; without `score` it is given no rows to score."""
ENDPOINT = "MLSPARK_KUBEFLOW"
"""Variable with the URL of Kubeflow Pipelines."""


@dataclass(frozen=True)
class Place:
    """What the user says of where a job runs, beside the name of the target."""

    master: str = ""
    """Spark's master; empty: the target's own."""
    image: str = ""
    """Container image of the executors, or of the pipeline's components, which has mlspark; for kubernetes, kubeflow."""
    namespace: str = ""
    """Namespace of the executors; for kubernetes."""
    confs: Sequence[str] = ()
    """Settings of Spark, NAME=VALUE."""


def stages(target: str, place: Place, names: Sequence[str], folder: Path) -> tuple[Stage, ...]:
    """Return the stages with their command lines.

    The driver runs where the worker is, on every target: it writes report and log there, and ends when it is asked to.

    Args:
        target: one of TARGETS.
        place: the rest of what the user says.
        names: of STAGES; for kubeflow, the pipeline's.
        folder: working folder, with jobs/.

    Raises:
        ConfigError: there is no such target, it lacks something, or it cannot run jobs yet; a file of jobs/ is not there.
    """
    if target not in (*TARGETS, "kubeflow"):
        raise ConfigError(f"--target {target}: must be one of {', '.join(TARGETS)}, kubeflow")
    for conf in place.confs:
        name, equals, _ = conf.partition("=")
        if not equals or not re.fullmatch(r"spark\.[\w.\-]+", name):
            raise ConfigError(f"--conf {name[:100]}: expected spark.NAME=VALUE")
        credentials.refuse(conf, at=f"--conf {name}")
    if target == "kubeflow":
        return (Stage("pipeline", _kubeflow(place, names)),)
    options = TARGETS[target](place)
    programs = [f"jobs/{name}.py" for name in names]
    missing = [program for program in programs if not (folder / program).exists()]
    if missing:
        raise ConfigError(f"{missing[0]} not found in {folder}; submit in the folder of the project, which has jobs/")
    spark_submit = Path(sys.executable).with_name("spark-submit")
    if not spark_submit.exists():
        raise ConfigError(f'{spark_submit}: not found; install pyspark beside mlspark: pip install "mlspark[spark]"')
    confs = [part for conf in place.confs for part in ("--conf", conf)]
    return tuple(
        Stage(name, (str(spark_submit), *options, *confs, program))
        for name, program in zip(names, programs, strict=True)
    )


def _local(place: Place) -> list[str]:
    _refuse("local", place, "image", "namespace")
    _check_master("local", place, r"local(\[[\d*,]+\])?", "local[4]")
    return ["--master", place.master] if place.master else []  # else that of conf/spark-defaults.conf


def _standalone(place: Place) -> list[str]:
    _refuse("standalone", place, "image", "namespace")
    _check_master("standalone", place, r"spark://[\w.\-]+:\d+(,[\w.\-]+:\d+)*", "spark://HOST:7077", is_needed=True)
    return ["--master", place.master]


def _yarn(place: Place) -> list[str]:
    _refuse("yarn", place, "master", "image", "namespace")
    return ["--master", "yarn", "--deploy-mode", "client"]


def _kubernetes(place: Place) -> list[str]:
    _check_master("kubernetes", place, r"k8s://https?://[\w.\-]+(:\d+)?", "k8s://https://HOST:6443", is_needed=True)
    if not place.image:
        raise ConfigError(
            "--target kubernetes: give --image, a container image with Spark and mlspark for the executors"
        )
    confs = {"container.image": place.image, "namespace": place.namespace}
    given = [part for name, value in confs.items() if value for part in ("--conf", f"spark.kubernetes.{name}={value}")]
    return ["--master", place.master, "--deploy-mode", "client", *given]


def _kubeflow(place: Place, names: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that has the cluster run its pipeline, all stages as one, and waits for the end."""
    _refuse("kubeflow", place, "master", "namespace")
    if place.confs:
        raise ConfigError("--conf: means nothing to --target kubeflow; Spark's settings are those of the image")
    if other := sorted(({*names} ^ {*PIPELINE}) - {"score"}):
        raise ConfigError(
            f"--target kubeflow: its pipeline is {','.join(PIPELINE)}, and cannot be had with or without {','.join(other)}"
        )
    endpoint = os.environ.get(ENDPOINT, "")
    if not re.fullmatch(r"https?://[\w.\-]+(:\d+)?(/[\w.\-/]*)?", endpoint):
        given = credentials.masked(endpoint) or "not set"
        raise ConfigError(
            f"--target kubeflow: {ENDPOINT} is {given}; give it the URL of Kubeflow Pipelines, of the form "
            f"https://HOST/pipeline; without one, mlspark kubeflow run runs the same pipeline here"
        )
    mlspark = Path(sys.executable).with_name("mlspark")
    image = ("--image", place.image) if place.image else ()
    nothing_to_score = () if "score" in names else ("--set", "scoring.source=null")
    return (str(mlspark), "kubeflow", "run", "--endpoint", endpoint, *image, *nothing_to_score)


TARGETS: Mapping[str, Callable[[Place], list[str]]] = {
    "local": _local,
    "standalone": _standalone,
    "yarn": _yarn,
    "kubernetes": _kubernetes,
}
"""Name -> function that returns the options of spark-submit, or raises ConfigError."""


def _refuse(target: str, place: Place, *names: str) -> None:
    for name in names:
        if getattr(place, name):
            raise ConfigError(f"--{name}: means nothing to --target {target}; leave it out")


def _check_master(target: str, place: Place, pattern: str, example: str, *, is_needed: bool = False) -> None:
    if place.master and not re.fullmatch(pattern, place.master):
        raise ConfigError(f"--master {credentials.masked(place.master)}: --target {target} expects the form {example}")
    if is_needed and not place.master:
        raise ConfigError(f"--target {target}: give --master, of the form {example}")
