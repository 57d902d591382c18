"""All ranks of a training run, started from the driver as one Spark barrier stage by TorchDistributor."""

import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.streaming.snapshot import Snapshot
from mlspark.training.events import following
from mlspark.training.metrics import BinaryMetrics
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_TAIL_LINES = 20
_EXECUTORS_SECONDS = 30.0
"""How long executors of a cluster that has just been asked for may take to register."""
_SETTLING_SECONDS = 2.0
"""How long the tasks of a stage that has just ended may count as busy."""
_LOST_PEER = re.compile(r"connection (closed|reset|refused)|broken pipe|timed? ?out|gloo|nccl|remote process", re.I)
"""What a rank says when another one is gone: an effect, not the cause."""
_ENDED = re.compile(
    r"rank (?P<rank>\d+) on (?P<host>\S+): Command .*? failed with return code (?P<status>-?\d+)"
    r".*? included below: (?P<output>.*?)(?=\n\s*(?:SQLSTATE|at [\w.$]+\()|\Z)",
    re.S,
)
"""What `_run_rank` raises, within all that Spark puts around it."""
_NO_MLSPARK = (
    "the executors' Python cannot import mlspark; install the same mlspark on every node, or set "
    "spark.pyspark.python (or PYSPARK_PYTHON) to a Python that has it"
)


@dataclass(frozen=True)
class TrainingOutcome:
    """A training run that ended well, as checked on the driver."""

    run_uri: str
    world_size: int
    steps: int
    """Optimizer steps of the run, equal on all ranks."""
    rows_per_epoch: int
    """Training rows seen by all ranks together in each epoch."""
    rows_seen_per_rank: tuple[int, ...]
    """Training rows seen by each rank in the whole run."""
    metrics: Mapping[str, BinaryMetrics]
    """Of the best checkpoint, by split: validation, test; splits without rows are absent."""
    best_epoch: int
    checkpoint_uri: str
    """The best checkpoint, for `checkpoint.load`."""
    data_wait_fraction: float
    """Share of the training time that ranks waited for data, mean over ranks."""
    train_seconds: float
    """Time in training epochs of the slowest rank, without launch, validation and checkpoints."""
    seconds: float
    """Whole run as seen by the driver."""

    @property
    def rows_per_second(self) -> float:
        return sum(self.rows_seen_per_rank) / self.train_seconds


def launch(spark: SparkSession, spec: TrainingSpec, on_event: Callable[[dict[str, Any]], None]) -> TrainingOutcome:
    """Run `spec` on `training.num_processes` ranks, one per Spark task, and return what came of it. Runs on the driver.

    Needs spec.snapshot_uri in place; writes everything else below spec.run_uri, which no run may have used before.

    Args:
        spark: an active session whose executors reach spec.run_uri and the table.
        spec: the run.
        on_event: called in another thread for each event of rank 0, in order, exactly once, while the ranks run.

    Raises:
        ConfigError: too few free task slots or GPUs; raised before anything is started.
        TrainingFailed: a rank failed (names rank, host, exception and the last lines of its traceback), executors
            cannot import mlspark, or the ranks' own counts do not add up to the rows of the split.
    """
    started = time.perf_counter()
    snapshot = Snapshot.load(spec.snapshot_uri)
    if storage.list_files(spec.ranks_uri) or storage.list_files(spec.events_uri):
        raise TrainingFailed(f"{spec.run_uri}: holds the results of an earlier run; give each run a folder of its own")
    if spec.training.use_gpu:
        _check_gpus(spark)
    check_slots(spark, spec.training.num_processes)
    spec.save()
    with following(spec.events_uri, on_event):
        _run_ranks(spec)
    return _outcome(spec, snapshot, time.perf_counter() - started)


class _Distributor(TorchDistributor):
    """TorchDistributor without its log server, which listens on all interfaces, in clear text, for anybody's lines.

    Events of rank 0 tell how the training goes, ranks/*.error.json why it failed, and what ranks print is in the
    executors' standard output.
    """

    def _run_distributed_training(
        self,
        framework_wrapper_fn: Any,
        train_object: Any,
        run_pytorch_file_fn: Any,
        spark_dataframe: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.driver_address, self.log_streaming_server_port = "", -1  # -1: the parent's word for "no server"
        run_task = self._get_spark_task_function(
            framework_wrapper_fn, train_object, run_pytorch_file_fn, spark_dataframe, *args, **kwargs
        )
        self._check_encryption()
        tasks = self.spark.range(start=0, end=self.num_tasks, step=1, numPartitions=self.num_tasks)
        tasks.mapInArrow(run_task, schema="chunk binary", barrier=True).collect()


def _run_rank(input_params: Mapping[str, Any], module: str, spec_uri: str, shows_output: bool) -> None:
    """Run one rank and wait for it. Runs in a Spark task on an executor, called by TorchDistributor.

    Not through torchrun: a Spark task has one rank, and TorchDistributor has set all of torchrun's variables already.
    That saves two processes and seconds of imports per rank, and the exit status counts (pyspark's wrapper around
    torchrun ends with 0 whatever became of the script).

    Raises:
        RuntimeError: the rank failed; names rank and host and holds the last lines that it printed.
    """
    try:
        TorchDistributor._execute_command([sys.executable, "-m", module, spec_uri], redirect_to_stdout=shows_output)
    except RuntimeError as error:
        raise RuntimeError(f"rank {os.environ['RANK']} on {socket.gethostname()}: {error}") from None


def _run_ranks(spec: TrainingSpec) -> None:
    training = spec.training
    distributor = _Distributor(training.num_processes, local_mode=False, use_gpu=training.use_gpu)
    # On a local master an executor's standard output is the user's terminal.
    shows_output = not distributor.is_spark_local_master
    try:
        distributor._run("mlspark.training.rank", _run_rank, spec.uri, shows_output)
    except Exception as error:
        raise TrainingFailed(_explain(spec, error)) from error


def _explain(spec: TrainingSpec, error: Exception) -> str:
    """Return the cause of a failed barrier stage: what a rank recorded, else how its process ended."""
    files = [uri for uri in storage.list_files(spec.ranks_uri) if uri.endswith(".error.json")]
    failures = {failure["rank"]: failure for failure in map(storage.read_json, files)}
    # The first to fail takes the others down, which then report a lost peer.
    first = min(failures.values(), key=lambda failure: (_is_lost_peer(failure), failure["time"]), default=None)
    if first is not None and not _is_lost_peer(first):
        return _recorded(spec, first)
    text = str(error)
    ended = _ENDED.search(text)
    if ended is not None and int(ended["rank"]) not in failures:
        if "No module named 'mlspark" in ended["output"]:
            return _NO_MLSPARK
        head = f"rank {ended['rank']} of {spec.training.num_processes} on {ended['host']}: "
        return f"{head}{_ending(int(ended['status']))}\n{_tail(ended['output'])}".rstrip()
    if first is not None:
        silent = sorted(set(range(spec.training.num_processes)) - failures.keys())
        lost = f"lost rank {' or '.join(map(str, silent))}, which left no exception (killed?): " if silent else ""
        return lost + _recorded(spec, first)
    return _NO_MLSPARK if "No module named 'mlspark" in text else f"the ranks' Spark stage failed: {text}"


def _is_lost_peer(failure: Mapping[str, Any]) -> bool:
    return failure["type"] != "TrainingFailed" and _LOST_PEER.search(failure["message"]) is not None


def _recorded(spec: TrainingSpec, failure: Mapping[str, Any]) -> str:
    head = f"rank {failure['rank']} of {spec.training.num_processes} on {failure['host']}: "
    message = f"{head}{failure['type']}: {failure['message']}"
    return message if failure["can_be_mended"] else f"{message}\n{_tail(failure['traceback'])}"


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status} and left no exception"
    name = signal.Signals(-status).name
    return f"killed by {name}" + (" (for want of memory?)" if name == "SIGKILL" else "")


def _tail(lines: str) -> str:
    """Return the last lines, without those that only underline the one before."""
    kept = [line for line in lines.rstrip().splitlines() if line.strip(" ^~")]
    return "\n".join(kept[-_TAIL_LINES:])


def check_slots(spark: SparkSession, num_processes: int, *, num_runs: int = 1) -> None:
    """Return once `num_runs` runs of `num_processes` ranks can start: a barrier stage that cannot would hang.

    Raises:
        ConfigError: too few task slots, or they stay busy.
    """
    context = spark.sparkContext
    master = str(context.master)
    is_local = re.fullmatch(r"local(\[.*\])?", master) is not None
    deadline = time.monotonic() + (_SETTLING_SECONDS if is_local else _EXECUTORS_SECONDS)
    scheduler = context._jsc.sc()
    tracker = context.statusTracker()
    num_wanted = num_processes * num_runs
    # The very number that Spark compares a barrier stage with: executors' cores and GPUs over those of a task.
    profile = scheduler.resourceProfileManager().defaultResourceProfile()
    while True:
        num_slots = scheduler.maxNumConcurrentTasks(profile)
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        num_busy = sum(stage.numActiveTasks for stage in stages if stage is not None)
        if num_slots - num_busy >= num_wanted:
            return
        if time.monotonic() > deadline or (is_local and num_slots < num_wanted):
            break
        time.sleep(0.5)
    times = f" x {num_runs} trials at a time" if num_runs > 1 else ""
    fewer = "training.num_processes or --parallel" if num_runs > 1 else "training.num_processes"
    more = f"start Spark with --master local[{num_wanted}]" if is_local else "add executors or executor cores"
    raise ConfigError(
        f"training.num_processes={num_processes}{times} needs as many free Spark task slots, but {master} has "
        f"{num_slots}, {num_busy} of them busy; lower {fewer} or {more}"
    )


def _check_gpus(spark: SparkSession) -> None:
    amount = spark.conf.get("spark.task.resource.gpu.amount", None)
    if amount != "1":
        raise ConfigError(
            f"training.use_gpu needs spark.task.resource.gpu.amount=1, got {amount}; set it, "
            f"spark.executor.resource.gpu.amount and a GPU discovery script, or set training.use_gpu to false"
        )


def _outcome(spec: TrainingSpec, snapshot: Snapshot, seconds: float) -> TrainingOutcome:
    """Return the ranks' results as one, checked against each other and against the snapshot."""
    world_size = spec.training.num_processes
    uris = [storage.join(spec.ranks_uri, f"rank-{rank}.json") for rank in range(world_size)]
    missing = [uri for uri in uris if not storage.exists(uri)]
    if missing:
        raise TrainingFailed(f"{', '.join(missing)}: no result of this rank, though its task ended well")
    ranks = [storage.read_json(uri) for uri in uris]
    steps = {rank["steps"] for rank in ranks}
    if len(steps) > 1:
        raise TrainingFailed(f"ranks took unequal numbers of steps: {[rank['steps'] for rank in ranks]}")
    num_rows = snapshot.where(split="train").num_rows
    if spec.streaming.remainder == "drop":
        num_rows -= num_rows % spec.training.global_batch_size
    rows_per_epoch = [sum(rows) for rows in zip(*(rank["rows_seen"] for rank in ranks), strict=True)]
    if rows_per_epoch != [num_rows] * spec.training.epochs:
        raise TrainingFailed(f"ranks saw {rows_per_epoch} rows in the epochs, the plan has {num_rows} in each")
    id_sums = {sum(sums) % 2**64 for sums in zip(*(rank["row_id_sums"] for rank in ranks), strict=True)}
    if len(id_sums) > 1 and spec.streaming.remainder == "pad":
        raise TrainingFailed("epochs saw equally many rows but not the same ones: row ids add up differently")
    return TrainingOutcome(
        run_uri=spec.run_uri,
        world_size=world_size,
        steps=steps.pop(),
        rows_per_epoch=num_rows,
        rows_seen_per_rank=tuple(sum(rank["rows_seen"]) for rank in ranks),
        metrics={split: BinaryMetrics.from_json(value) for split, value in ranks[0]["metrics"].items()},
        best_epoch=ranks[0]["best_epoch"],
        checkpoint_uri=spec.checkpoint_uri("best"),
        data_wait_fraction=sum(rank["wait_seconds"] / rank["train_seconds"] for rank in ranks) / world_size,
        train_seconds=max(rank["train_seconds"] for rank in ranks),
        seconds=seconds,
    )
