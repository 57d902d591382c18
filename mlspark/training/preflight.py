"""What must hold before ranks are started, asked beforehand: a barrier stage that cannot run would hang. Driver.

Executors import this module, to look at their place and to start ranks: not torch, which takes seconds in each of them.
"""

import functools
import importlib.util
import json
import logging
import platform
import re
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from mlspark import __version__, python_workers, storage
from mlspark.errors import ConfigError, MlsparkError
from mlspark.training.spec import Functions, TrainingSpec

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "numpy", "pyarrow", "petastorm", "safetensors", "pillow", "simplejpeg", "timm")
NO_MLSPARK = (
    "the executors' Python cannot import mlspark; install the same mlspark on every node, or set "
    "spark.pyspark.python (or PYSPARK_PYTHON) to a Python that has it"
)


def check(spark: SparkSession, spec: TrainingSpec, *, modules: Sequence[str] = ()) -> None:
    """Return when the ranks of `spec` can be started; one small Spark job of as many tasks.

    Args:
        spark: an active session.
        spec: the run; spec.snapshot_uri is in place.
        modules: that executors must be able to import, of a user's own model or loss.

    Raises:
        ConfigError: too few free task slots or GPUs, a setting that needs a GPU, a package that is missing on an executor
            or of another version than here, a place that an executor cannot read or write; names it and the remedy.
    """
    training = spec.training
    if not training.use_gpu:
        for setting, is_set in (
            ("precision=fp16", training.precision == "fp16"),
            ("sync_batch_norm=true", training.sync_batch_norm),
        ):
            if is_set:
                raise ConfigError(f"training.{setting} needs training.use_gpu=true; use precision=bf16 on CPUs")
    else:
        _check_gpus(spark)
    slots = free_slots(spark, wanted=training.num_processes, seconds=training.recovery.slots_seconds)
    if slots < training.num_processes:
        master = str(spark.sparkContext.master)
        remedy = (
            f"start Spark with --master local[{training.num_processes}]"
            if is_local(spark)
            else "add executors or executor cores"
        )
        raise ConfigError(
            f"training.num_processes={training.num_processes} needs as many free Spark task slots, but {master} has "
            f"{slots}; lower training.num_processes or {remedy}"
        )
    _check_executors(spark, spec, modules)


def check_parameters(spec: TrainingSpec, functions: Functions) -> None:
    """Return when what the settings say of parameters by name fits the model.

    Raises:
        ConfigError: a prefix meets no parameter; or the optimizer is of a package that is not installed.
    """
    settings = spec.training
    if not (settings.freeze or settings.unfreeze or settings.optimizer.rates or settings.optimizer.is_of_timm):
        return  # without making the model here
    import torch

    from mlspark.training import network, optimization
    from mlspark.training.parameters import Freezing

    with torch.random.fork_rng(devices=[]):
        model = network.with_random_weights(spec, functions)
    optimization.optimizer(settings.optimizer, model, Freezing(settings, model).first_epochs)


def is_local(spark: SparkSession) -> bool:
    """Return whether driver and executors are one process."""
    return re.fullmatch(r"local(\[.*\])?", str(spark.sparkContext.master)) is not None


def free_slots(spark: SparkSession, *, wanted: int, seconds: float) -> int:
    """Return how many tasks can start at once; waits for up to `seconds` until there are `wanted`.

    On a cluster for executors, elsewhere for tasks that run; not for what cannot come.
    """
    deadline = time.monotonic() + seconds
    while True:
        slots, busy = _slots(spark)
        can_grow = busy > 0 if is_local(spark) and slots >= wanted else not is_local(spark)
        if slots - busy >= wanted or not can_grow or time.monotonic() > deadline:
            return slots - busy
        time.sleep(0.25)


def _slots(spark: SparkSession) -> tuple[int, int]:
    """Return (task slots, those that are busy)."""
    context = spark.sparkContext
    scheduler = context._jsc.sc()
    # The very number that Spark compares a barrier stage with: executors' cores and GPUs over those of a task.
    profile = scheduler.resourceProfileManager().defaultResourceProfile()
    tracker = context.statusTracker()
    stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    num_busy = sum(stage.numActiveTasks for stage in stages if stage is not None)
    return int(scheduler.maxNumConcurrentTasks(profile)), num_busy


def _check_gpus(spark: SparkSession) -> None:
    amount = spark.conf.get("spark.task.resource.gpu.amount", None)
    if amount != "1":
        raise ConfigError(
            f"training.use_gpu needs spark.task.resource.gpu.amount=1, got {amount}; set it, "
            f"spark.executor.resource.gpu.amount and a GPU discovery script, or set training.use_gpu to false"
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that ranks need; "" for one that is missing."""
    installed = {"python": ".".join(platform.python_version_tuple()[:2]), "mlspark": __version__}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = ""
    return installed


def _check_executors(spark: SparkSession, spec: TrainingSpec, modules: Sequence[str]) -> None:
    count = spec.training.num_processes
    look = functools.partial(_look, spec.snapshot_uri, spec.run_uri, tuple(modules))
    try:
        # A barrier stage, as that of the ranks: all tasks at once, so where the ranks will be. And not of an RDD, for which
        # Spark starts Python processes of their own.
        rows = spark.range(0, count, 1, count).mapInArrow(look, "report string", barrier=True).collect()
    except Exception as error:
        if "No module named 'mlspark" in str(error):
            python_workers.import_none(spark)
            raise ConfigError(NO_MLSPARK) from error
        raise
    reports = [json.loads(row["report"]) for row in rows]
    here = versions()
    for report in reports:
        host, python = report["host"], report["executable"]
        if report["problem"]:
            raise ConfigError(f"{host}: {report['problem']}")
        for name, version in here.items():
            installed = report["versions"][name]
            if installed != version:
                raise ConfigError(
                    f"{host}: {python} has {name} {installed or 'not at all'}, the driver has {version}; install the same "
                    f"packages on every node, or set spark.pyspark.python to a Python that has them"
                )
        if spec.training.use_gpu and report["gpus"] != 1:
            raise ConfigError(
                f"{host}: the task of a rank sees {report['gpus']} GPUs, it needs one; check "
                f"spark.task.resource.gpu.amount=1 and that torch was built for this GPU's driver"
            )


def _look(
    snapshot_uri: str, run_uri: str, modules: tuple[str, ...], _: "Iterator[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    """Yield a report of the place where a task runs, as JSON. Executor."""
    import pyarrow as pa

    problem, gpus = "", 0
    try:
        storage.read_bytes(snapshot_uri)
        trial = storage.join(run_uri, f"trial-{uuid.uuid4().hex}")
        storage.write_bytes(trial, b"trial")
        filesystem, path = storage.filesystem(trial)
        filesystem.delete_file(path)
    except (OSError, MlsparkError) as error:
        problem = (
            f"cannot read and write {run_uri} ({error}); storage.root must be a place that driver and executors share"
        )
    for name in modules:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            problem = f"module {name} is not there; install it on every node, or send it with spark-submit --py-files"
    context = BarrierTaskContext.get()
    gpus = len(context.resources()["gpu"].addresses) if "gpu" in context.resources() else 0
    report = {
        "host": socket.gethostname(),
        "executable": sys.executable,
        "versions": versions(),
        "gpus": gpus,
        "problem": problem,
    }
    python_workers.leaves_nothing()
    yield pa.RecordBatch.from_pydict({"report": [json.dumps(report)]})
