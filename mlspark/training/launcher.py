"""All ranks of a training run, started from the driver as one Spark barrier stage by TorchDistributor, until it is done.

A rank that raises, is killed, falls silent or loses its executor ends the stage within seconds. What happened is told by
name, and the ranks are started again from the newest checkpoint, unless it is for the user to mend.
"""

import dataclasses
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint, link, preflight
from mlspark.training.guard import GRACE_SECONDS
from mlspark.training.link import Listener
from mlspark.training.metrics import BinaryMetrics
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_TAIL_LINES = 50
_LOOK_SECONDS = 0.2
_LONGEST_BACKOFF_SECONDS = 60.0
_FUNCTIONS = "MLSPARK_FUNCTIONS"  # as in `rank`, which imports torch
_LOST_PEER = re.compile(r"connection (closed|reset|refused)|broken pipe|timed? ?out|gloo|nccl|remote process", re.I)
"""What a rank says when another one is gone: an effect, not the cause."""
_CANCELLED = re.compile(r"\bjob \d+ (was )?cancelled", re.I)
_ENDED = re.compile(
    r"rank (?P<rank>\d+) on (?P<host>\S+): Command .*? failed with return code (?P<status>-?\d+)"
    r".*? included below: (?P<output>.*?)(?=\n\s*(?:SQLSTATE|at [\w.$]+\()|\Z)",
    re.S,
)
"""What `_run_rank` raises, within all that Spark puts around it."""
_NOT_PASSING = ("ModuleNotFoundError", "ImportError", "SyntaxError", "AttributeError", "NameError")
"""Exceptions that a restart meets again."""

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainingOutcome:
    """A training run that ended well, as checked on the driver."""

    run_uri: str
    world_size: int
    """Ranks at the end."""
    restarts: int
    """Starts after the first, of all processes that drove the run."""
    steps: int
    """Optimizer steps of the run, equal on all ranks."""
    epochs: tuple[Mapping[str, Any], ...]
    """Figures of each epoch: rows, train_loss, validation_*, learning_rate, seconds, ..."""
    rows_per_epoch: int
    """Training rows seen by all ranks together in each epoch: each once."""
    metrics: Mapping[str, BinaryMetrics]
    """Of the best checkpoint, by split: validation, test; splits without rows are absent."""
    best_epoch: int
    checkpoint_uri: str
    """The weights of the best epoch, for `checkpoint.load`."""
    data_wait_fraction: float
    """Share of the training time that ranks waited for data, mean over ranks."""
    train_seconds: float
    """Time in training epochs of the slowest rank, without launch, validation and checkpoints."""
    seconds: float
    """Whole run as seen by this driver."""

    @property
    def rows_per_second(self) -> float:
        return self.rows_per_epoch * len(self.epochs) / self.train_seconds


class _Failure(Exception):
    """An attempt failed; the message says why."""

    def __init__(self, message: str, *, may_pass: bool, key: str = "") -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.key = key
        """Equal for two failures of one cause at one place of the run; empty: none was recorded."""


def launch(
    spark: SparkSession,
    spec: TrainingSpec,
    on_event: OnEvent,
    *,
    functions: tuple[Any, Any] | None = None,
) -> TrainingOutcome:
    """Run `spec` on `training.num_processes` ranks, one per Spark task, and return what came of it. Runs on the driver.

    Needs spec.snapshot_uri in place; writes everything else below spec.run_uri. A run that was begun there and not ended
    goes on, one that was ended is returned. Restarts failed ranks as `training.recovery` says.

    Args:
        spark: an active session whose executors reach spec.run_uri, the table and this driver.
        spec: the run.
        on_event: called in another thread for each event, in order, while the ranks run: "started", those of rank 0 (see
            `trainer.fit`), "silent", "failed" and "restarting". When it raises, the ranks are ended, and so does this.
        functions: (model, loss) in place of the settings', sent to the ranks; None for either: as the settings say.

    Raises:
        ConfigError: too few free task slots or GPUs, or what else `preflight.check` finds; or the run in spec.run_uri has
            other settings. Nothing was started.
        TrainingFailed: a rank failed (names rank, host, exception and the last lines that it logged) and a restart does
            not help, or the ranks' own counts do not add up to the rows of the split.
    """
    started = time.perf_counter()
    snapshot = Snapshot.load(spec.snapshot_uri)
    earlier = storage.list_folders(spec.attempts_uri)
    finished = _finished(spec, snapshot)
    if finished is not None:
        by, world_size = finished
        logger.info("%s: trained already, by start %d", spec.run_uri, by.attempt)
        return _outcome(by, snapshot, world_size, time.perf_counter() - started)
    payload = _pickled(functions)
    preflight.check(spark, spec, modules=_modules(spec, functions or (None, None)))
    recovery, failures = spec.training.recovery, list[_Failure]()
    world_size = spec.training.num_processes
    for attempt in range(len(earlier) + 1, len(earlier) + recovery.max_restarts + 2):
        spec = dataclasses.replace(spec, attempt=attempt)
        spec.save()
        on_event({"event": "started", "attempt": attempt, "world_size": world_size, "run": spec.run_uri})
        try:
            _run_ranks(spark, spec, world_size, on_event, payload)
            return _outcome(spec, snapshot, world_size, time.perf_counter() - started)
        except _Failure as failure:
            is_last = len(failures) == recovery.max_restarts
            is_repeated = bool(failures and failure.key and failure.key == failures[-1].key)
            failures.append(failure)
            message = str(failure)
            on_event({"event": "failed", "attempt": attempt, "message": message})
            if not failure.may_pass or is_last or is_repeated:
                raise TrainingFailed(_final(message, failures, is_repeated=is_repeated)) from failure
            pause = min(recovery.backoff_seconds * 2 ** (len(failures) - 1), _LONGEST_BACKOFF_SECONDS)
            logger.warning("%s", message)
            time.sleep(pause)
            world_size = _ranks_now(spark, spec, message)
            logger.warning(
                "restart %d of %d, %d ranks, from the newest checkpoint",
                len(failures),
                recovery.max_restarts,
                world_size,
            )
            on_event({"event": "restarting", "restart": len(failures), "world_size": world_size, "pause": pause})
    raise AssertionError("the last attempt returns or raises")


def _finished(spec: TrainingSpec, snapshot: Snapshot) -> tuple[TrainingSpec, int] | None:
    """Return the start by which this run was finished and its ranks, if the driver has died before it used the results."""
    for folder in reversed(storage.list_folders(spec.attempts_uri)):
        begun = TrainingSpec.load(storage.join(folder, "spec.json"))
        other = checkpoint.differences(begun.identity(snapshot.fingerprint), spec.identity(snapshot.fingerprint))
        if other:
            raise ConfigError(
                f"{spec.run_uri}: a run with other settings was begun here: {'; '.join(other)}; give another folder"
            )
        if storage.exists(_rank_uri(begun, 0)):
            world_size = storage.read_json(_rank_uri(begun, 0))["world_size"]
            if all(storage.exists(_rank_uri(begun, rank)) for rank in range(world_size)):
                return begun, world_size
    return None


def _rank_uri(spec: TrainingSpec, rank: int) -> str:
    return storage.join(spec.attempt_uri, f"rank-{rank}.json")


def _final(message: str, failures: Sequence[_Failure], *, is_repeated: bool) -> str:
    if is_repeated:
        return f"{message}\n(failed twice in the same way at the same step: not started again)"
    return f"{message}\n({len(failures)} starts failed)" if len(failures) > 1 else message


def _pickled(functions: tuple[Any, Any] | None) -> bytes:
    if functions is None:
        return b""
    try:
        return bytes(cloudpickle.dumps(functions))
    except Exception as error:  # whatever the objects' own code raises
        raise ConfigError(
            f"the model or loss function cannot be sent to the ranks: {type(error).__name__}: {error}; make open files, "
            f"locks, sessions and the like inside the function, not outside"
        ) from error


def _modules(spec: TrainingSpec, functions: tuple[Any, Any]) -> list[str]:
    """Return the modules that ranks import for a user's model and loss; a function that was given is not imported."""
    paths = zip((spec.model.factory, spec.training.loss), functions, strict=True)
    return [path.partition(":")[0] for path, given in paths if path and given is None]


def _ranks_now(spark: SparkSession, spec: TrainingSpec, why: str) -> int:
    """Return with how many ranks to go on: as many as wanted, or as there are slots for and the batch allows."""
    training = spec.training
    slots = preflight.free_slots(spark, wanted=training.num_processes, seconds=training.recovery.slots_seconds)
    least = training.recovery.min_processes or training.num_processes
    parts = training.global_batch_size // training.accumulation_steps
    for world_size in range(min(slots, training.num_processes), least - 1, -1):
        if world_size and spec.streaming.streams % world_size == 0 and parts % world_size == 0:
            return world_size
    raise TrainingFailed(
        f"{why}\n(not started again: {slots} Spark task slots are left, training.num_processes={training.num_processes}, "
        f"training.recovery.min_processes={training.recovery.min_processes}; run again to go on when there are more)"
    )


class _Distributor(TorchDistributor):
    """TorchDistributor without its log server, which listens on all interfaces, in clear text, for anybody's lines.

    Ranks tell the driver how they fare by `link`, and what they print is in the executors' standard output.
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


def _run_rank(
    input_params: Mapping[str, Any],
    module: str,
    spec_uri: str,
    environment: Mapping[str, str],
    functions: bytes,
    shows_output: bool,
) -> None:
    """Run one rank and wait for it. Runs in a Spark task on an executor, called by TorchDistributor.

    Not through torchrun: a Spark task has one rank, and TorchDistributor has set all of torchrun's variables already.
    That saves two processes and seconds of imports per rank, and the exit status counts (pyspark's wrapper around
    torchrun ends with 0 whatever became of the script).

    Raises:
        RuntimeError: the rank failed; names rank and host and holds the last lines that it printed.
    """
    os.environ.update(environment)
    os.environ.pop(_FUNCTIONS, None)  # Spark uses a Python for one task after the other
    command = [sys.executable, "-m", "mlspark.training.guard", sys.executable, "-m", module, spec_uri]
    with tempfile.TemporaryDirectory(prefix="mlspark-rank-") as folder:
        if functions:
            file = Path(folder) / "functions"
            file.write_bytes(functions)
            os.environ[_FUNCTIONS] = str(file)
        try:
            TorchDistributor._execute_command(command, redirect_to_stdout=shows_output)
        except RuntimeError as error:
            raise RuntimeError(f"rank {os.environ['RANK']} on {socket.gethostname()}: {error}") from None


def _run_ranks(spark: SparkSession, spec: TrainingSpec, world_size: int, on_event: OnEvent, functions: bytes) -> None:
    """Run all ranks to their end, and see to it that none is left.

    Raises:
        _Failure: one of them failed.
    """
    is_on_one_machine = preflight.is_local(spark)
    host = "127.0.0.1" if is_on_one_machine else str(spark.conf.get("spark.driver.bindAddress", None) or _driver(spark))
    shown = "" if is_on_one_machine else _driver(spark)
    with (
        Listener(host, on_event, shown_host=shown) as listener,
        _watching(spark, spec, world_size, listener) as verdict,
    ):
        distributor = _Distributor(world_size, local_mode=False, use_gpu=spec.training.use_gpu)
        environment = {link.ADDRESS: listener.address, link.TOKEN: listener.token}
        # On a local master an executor's standard output is the user's terminal.
        shows_output = not distributor.is_spark_local_master
        error: BaseException | None = None
        try:
            distributor._run("mlspark.training.rank", _run_rank, spec.uri, environment, functions, shows_output)
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                listener.stop()  # the user interrupts: time for a checkpoint
        # Spark does not wait for what it has killed.
        if not listener.wait_closed(GRACE_SECONDS + 5.0):
            logger.warning("a rank of %s does not end", spec.run_uri)
        if listener.error is not None:
            raise listener.error
        if verdict:
            raise _Failure(verdict[0], may_pass=True)
        if isinstance(error, Exception):
            raise _explained(spec, world_size, listener, error) from error
        if error is not None:
            raise error


def _driver(spark: SparkSession) -> str:
    return str(spark.conf.get("spark.driver.host"))


@contextmanager
def _watching(spark: SparkSession, spec: TrainingSpec, world_size: int, listener: Listener) -> Iterator[list[str]]:
    """End the Spark job of this thread when a rank falls silent, or `on_event` raises; gives a list with the reason."""
    context, tag, verdict, is_over = spark.sparkContext, f"mlspark-{uuid.uuid4().hex}", list[str](), threading.Event()
    recovery, began = spec.training.recovery, time.monotonic()

    def silent_rank() -> str:
        now = time.monotonic()
        for rank in range(world_size):
            state = listener.ranks.get(rank)
            who = f"rank {rank} of {world_size}"
            if state is None:
                if now - began > recovery.start_seconds:
                    return f"{who}: gave no sign of life in the {recovery.start_seconds:g} s since its start"
            elif not state.is_done:
                where = f"{who} on {state.host} (process {state.pid})"
                if state.closed is None and now - state.seen > recovery.silent_seconds:
                    return f"{where}: silent for {now - state.seen:.0f} s: stopped, or its machine is gone"
                if state.closed is not None and now - state.closed > recovery.silent_seconds:
                    return f"{where}: ended {now - state.closed:.0f} s ago, and Spark has not noticed"
        return ""

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if listener.error is not None:
                listener.stop()
                is_over.wait(_STOP_SECONDS)
            elif found := silent_rank():
                verdict.append(found)
                listener.tell({"event": "silent", "message": found})  # it takes seconds to end what is left
            else:
                continue
            if not is_over.is_set():
                context.cancelJobsWithTag(tag)
            return

    context.addJobTag(tag)
    context.setInterruptOnCancel(True)
    watcher = threading.Thread(target=watch, name="watch-ranks", daemon=True)
    watcher.start()
    try:
        yield verdict
    finally:
        is_over.set()
        watcher.join()
        context.removeJobTag(tag)


_STOP_SECONDS = 5.0
"""How long ranks that were asked to end may take until Spark ends them."""


def _explained(spec: TrainingSpec, world_size: int, listener: Listener, error: Exception) -> _Failure:
    """Return the cause of a failed barrier stage: what a rank recorded, else how its process ended."""
    text = str(error)
    if _CANCELLED.search(text):
        return _Failure("the Spark job was cancelled; run again to go on from the newest checkpoint", may_pass=False)
    failures = {rank: state.failure for rank, state in listener.ranks.items() if state.failure is not None}
    try:  # of ranks that could not reach the driver
        files = [uri for uri in storage.list_files(spec.attempt_uri) if uri.endswith(".error.json")]
        failures = {failure["rank"]: failure for failure in map(storage.read_json, files)} | failures
    except OSError as unreadable:
        logger.warning("%s cannot be read: %s", spec.attempt_uri, unreadable)
    # The first to fail takes the others down, which then report a lost peer.
    first = min(failures.values(), key=lambda failure: (_is_lost_peer(failure), failure["time"]), default=None)
    if first is not None and not _is_lost_peer(first):
        return _recorded(world_size, first)
    ended = _ENDED.search(text)
    if ended is not None and int(ended["rank"]) not in failures:
        if "No module named 'mlspark" in ended["output"]:
            return _Failure(preflight.NO_MLSPARK, may_pass=False)
        head = f"rank {ended['rank']} of {world_size} on {ended['host']}: "
        return _Failure(f"{head}{_ending(int(ended['status']))}\n{_tail(ended['output'])}".rstrip(), may_pass=True)
    if first is not None:
        silent = [
            f"{rank} on {listener.ranks[rank].host}" if rank in listener.ranks else str(rank)
            for rank in range(world_size)
            if rank not in failures
        ]
        lost = f"lost rank {' or '.join(silent)}, which left no exception (killed?): " if silent else ""
        return _Failure(lost + str(_recorded(world_size, first)), may_pass=True)
    if "No module named 'mlspark" in text:
        return _Failure(preflight.NO_MLSPARK, may_pass=False)
    return _Failure(f"the ranks' Spark stage failed: {_tail(text.partition('Driver stacktrace')[0])}", may_pass=True)


def _is_lost_peer(failure: Mapping[str, Any]) -> bool:
    return failure["type"] != "TrainingFailed" and _LOST_PEER.search(failure["message"]) is not None


def _recorded(world_size: int, failure: Mapping[str, Any]) -> _Failure:
    head = f"rank {failure['rank']} of {world_size} on {failure['host']}: "
    where = f" ({'; '.join(failure['notes'])})" if failure["notes"] else ""
    message = f"{head}{failure['type']}: {failure['message']}{where}"
    if failure["can_be_mended"]:
        return _Failure(message, may_pass=False)
    logged = _tail("\n".join(failure["log"]))
    log = f"\nlogged before:\n{logged}" if logged else ""
    may_pass = failure["type"] not in _NOT_PASSING
    key = f"{failure['type']} {failure['message']}{where}"
    return _Failure(f"{message}\n{_tail(failure['traceback'])}{log}", may_pass=may_pass, key=key)


def _ending(status: int) -> str:
    """Return how a process ended, by its guard's status."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"ended with exit status {status} and left no exception"
    name = signal.Signals(number).name
    return f"killed by {name}" + (" (for want of memory?)" if name == "SIGKILL" else "")


def _tail(lines: str) -> str:
    """Return the last lines, without those that only underline the one before."""
    kept = [line for line in lines.rstrip().splitlines() if line.strip(" ^~")]
    return "\n".join(kept[-_TAIL_LINES:])


def _outcome(spec: TrainingSpec, snapshot: Snapshot, world_size: int, seconds: float) -> TrainingOutcome:
    """Return the ranks' results as one, checked against each other and against the snapshot."""
    uris = [_rank_uri(spec, rank) for rank in range(world_size)]
    missing = [uri for uri in uris if not storage.exists(uri)]
    if missing:
        raise TrainingFailed(f"{', '.join(missing)}: no result of this rank, though its task ended well")
    ranks = [storage.read_json(uri) for uri in uris]
    if len({rank["steps"] for rank in ranks}) > 1:
        raise TrainingFailed(f"ranks took unequal numbers of steps: {[rank['steps'] for rank in ranks]}")
    num_rows = snapshot.where(split="train").num_rows
    if spec.streaming.remainder == "drop":
        num_rows -= num_rows % spec.training.global_batch_size
    epochs = ranks[0]["epochs"]
    for rank in ranks:
        rows_per_epoch = [epoch["rows"] for epoch in rank["epochs"]]
        if rows_per_epoch != [num_rows] * len(epochs):
            raise TrainingFailed(f"ranks saw {rows_per_epoch} rows in the epochs, the plan has {num_rows} in each")
        if len({epoch["row_id_sum"] for epoch in rank["epochs"]}) > 1 and spec.streaming.remainder == "pad":
            raise TrainingFailed("epochs saw equally many rows but not the same ones: row ids add up differently")
    return TrainingOutcome(
        run_uri=spec.run_uri,
        world_size=world_size,
        restarts=spec.attempt - 1,
        steps=ranks[0]["steps"],
        epochs=tuple(epochs),
        rows_per_epoch=num_rows,
        metrics={split: BinaryMetrics.from_json(value) for split, value in ranks[0]["metrics"].items()},
        best_epoch=ranks[0]["best_epoch"],
        checkpoint_uri=spec.best_uri,
        data_wait_fraction=sum(rank["wait_seconds"] / rank["train_seconds"] for rank in ranks) / world_size,
        train_seconds=max(rank["train_seconds"] for rank in ranks),
        seconds=seconds,
    )
