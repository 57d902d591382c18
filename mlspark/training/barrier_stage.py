"""All ranks of one start of a run as one Spark barrier stage, watched until each of them is gone. Driver and executors."""

import codecs
import logging
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pyspark import BarrierTaskContext
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from mlspark import python_workers
from mlspark.child_processes import Forked
from mlspark.training import driver_link, preflight, rank_supervisor
from mlspark.training.driver_link import Listener
from mlspark.training.events import OnEvent, RankSilent
from mlspark.training.failures import AttemptFailure, explained
from mlspark.training.rank_supervisor import GRACE_SECONDS
from mlspark.training.settings import RecoverySettings
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_STOP_SECONDS = 5.0
"""Seconds that ranks which were asked to end may take until Spark ends them."""
_OUTPUT_SECONDS = 5.0
"""Seconds for which the output of a rank that has ended is waited for: something that it started may hold the pipe."""
_OUTPUT_CHARACTERS = 20_000
"""Characters of a rank's output that an error shows, the last ones."""


class _Distributor(TorchDistributor):
    """TorchDistributor without its log server, which listens on all interfaces, in clear text, for anybody's lines.

    Ranks report to the driver by `driver_link`, and what they print is in the executors' standard output.
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
        if self.is_spark_local_master:
            with suppress(OSError):  # then they agree on a port, as on a cluster
                run_task = partial(_with_port, _free_port(_driver(self.spark)), run_task)
        self._check_encryption()
        tasks = self.spark.range(start=0, end=self.num_tasks, step=1, numPartitions=self.num_tasks)
        tasks.mapInArrow(run_task, schema="chunk binary", barrier=True).collect()


def _free_port(host: str) -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind((host, 0))
        return int(taken.getsockname()[1])


def _with_port(port: int, run_task: Callable[[Any], Iterator[Any]], batches: Any) -> Iterator[Any]:
    """Do what a task of TorchDistributor does, with a port that the driver has found for rank 0. Executor.

    The tasks would ask each other, which takes a second: Spark looks for the answer once in one.
    """
    agree = BarrierTaskContext.allGather
    BarrierTaskContext.allGather = lambda context, message="": [str(port)]  # type: ignore[assignment, method-assign]
    try:
        yield from run_task(batches)
    finally:
        BarrierTaskContext.allGather = agree  # type: ignore[method-assign]


def run_rank(
    input_params: Mapping[str, Any],
    module: str,
    spec_uri: str,
    environment: Mapping[str, str],
    functions: bytes,
    shows_output: bool,
    may_fork: bool,
) -> None:
    """Run one rank and wait for it. Runs in a Spark task on an executor, called by TorchDistributor.

    Not through torchrun: a Spark task has one rank, and TorchDistributor has set all of torchrun's variables already.
    That saves two processes and seconds of imports per rank, and the exit status counts (pyspark's wrapper around
    torchrun ends with 0 whatever became of the script). Supervisor and rank are copies of this process, and import nothing,
    where they may and it `can_fork`.

    Raises:
        RuntimeError: the rank failed; names rank and host and holds the last lines that it printed.
    """
    os.environ.update(environment)
    os.environ.pop(driver_link.FUNCTIONS, None)  # Spark uses a Python for one task after the other
    command = [sys.executable, "-m", "mlspark.training.rank_supervisor", sys.executable, "-m", module, spec_uri]
    is_copied = may_fork and python_workers.can_fork()
    start = partial(_forked, module, spec_uri) if is_copied else partial(_started, command)
    with tempfile.TemporaryDirectory(prefix="mlspark-rank-") as folder:
        if functions:
            file = Path(folder) / "functions"
            file.write_bytes(functions)
            os.environ[driver_link.FUNCTIONS] = str(file)
        status, output = _output_of(start, shows_output=shows_output)
    if is_copied:
        python_workers.leaves_nothing()
    if status:
        raise RuntimeError(
            f"rank {os.environ['RANK']} on {socket.gethostname()}: Command {command} failed with return code {status}. The "
            f"last lines of its output are included below: {output}"
        )


def _started(command: Sequence[str], output: int) -> "subprocess.Popen[bytes]":
    """Start a command that prints to an open file."""
    return subprocess.Popen(  # noqa: S603 (the launcher's own)
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )


def _forked(module: str, spec_uri: str, output: int) -> Forked:
    """Start the supervisor of a rank, and by it the rank, as copies of this process: they need import nothing."""

    def rank() -> None:
        sys.argv = [module, spec_uri]
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    def supervisor() -> None:
        sys.exit(rank_supervisor.run(lambda: Forked(rank, os.dup(1))))

    return Forked(supervisor, output)


def _output_of(start: "Callable[[int], subprocess.Popen[bytes] | Forked]", *, shows_output: bool) -> tuple[int, str]:
    """Return the exit status of what is started, to print to a file, and the end of what it printed, whatever bytes.

    TorchDistributor's own `_execute_command` fails on bytes that are no UTF-8, and waits for ever for the end of a pipe
    that another process holds, too.
    """
    pipe, end = os.pipe()
    try:
        process = start(end)
    finally:
        os.close(end)
    output = [""]
    reader = threading.Thread(target=_pass_on, args=(pipe, output, shows_output), daemon=True)
    reader.start()
    try:
        status = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
    reader.join(_OUTPUT_SECONDS)
    return status, output[0]


def _pass_on(pipe: int, output: list[str], shows_output: bool) -> None:
    """Read a pipe to its end, show what comes where that is wanted, and keep the end of it in output[0]."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    encoding = sys.stdout.encoding or "utf-8"
    with open(pipe, "rb", buffering=0) as file:
        while chunk := file.read(65_536):
            text = decoder.decode(chunk)
            output[0] = (output[0] + text)[-_OUTPUT_CHARACTERS:]
            if shows_output:
                sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
                sys.stdout.flush()


def run_ranks(spark: SparkSession, spec: TrainingSpec, world_size: int, on_event: OnEvent, functions: bytes) -> None:
    """Run all ranks to their end, and see to it that none is left.

    Raises:
        AttemptFailure: one of them failed.
    """
    is_on_one_machine = preflight.is_local(spark)
    host = "127.0.0.1" if is_on_one_machine else str(spark.conf.get("spark.driver.bindAddress", None) or _driver(spark))
    shown = "" if is_on_one_machine else _driver(spark)
    with (
        Listener(host, world_size, on_event, shown_host=shown) as listener,
        _watched(spark, spec, world_size, listener) as verdict,
    ):
        distributor = _Distributor(world_size, local_mode=False, use_gpu=spec.training.use_gpu)
        environment = {
            driver_link.ADDRESS: listener.address,
            driver_link.TOKEN: listener.token,
            driver_link.HEARTBEAT: str(spec.training.recovery.silent_seconds / 4),
        }
        # On a local master an executor's standard output is the user's terminal.
        shows_output = not distributor.is_spark_local_master
        error: BaseException | None = None
        try:
            arguments = (spec.uri, environment, functions, shows_output, spec.training.allows_copies)
            distributor._run("mlspark.training.rank", run_rank, *arguments)
        except BaseException as raised:
            error = _first_cause(raised)
            if not isinstance(error, Exception):
                listener.stop()  # the user interrupts: time for a checkpoint
        # Spark does not wait for what it has killed.
        if not listener.wait_closed(GRACE_SECONDS + 5.0):
            logger.warning("a rank of %s does not end", spec.run_uri)
        listener.wait_delivered()
        _raise_failure(spec, world_size, listener, verdict, error)


def _first_cause(error: BaseException) -> BaseException:
    """Return the interruption that `error` came in place of; `error` itself where there was none.

    An interruption breaks off the answer of Java that is waited for. What pyspark then asks Java for on the way out, as at
    the end of the call site of `collect`, may fail too, and that failure looks like one of the ranks.
    """
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, KeyboardInterrupt):
            return at
        at = at.__context__
    return error


def _raise_failure(
    spec: TrainingSpec, world_size: int, listener: Listener, verdict: list[str], error: BaseException | None
) -> None:
    """Raise what ended the ranks, unless all of them have left their results."""
    if isinstance(error, KeyboardInterrupt) and listener.stopped_step is not None:
        error.args = (f"at step {listener.stopped_step}",)
    if error is not None and not isinstance(error, Exception):
        raise error
    if listener.error is not None:
        raise listener.error
    if listener.all_are_done:
        if error is not None:
            logger.warning("all ranks have left their results, but their Spark stage did not end well")
        return
    if verdict:
        raise AttemptFailure(verdict[0], may_pass=True)
    if error is not None:
        raise explained(spec, world_size, listener, error) from error


def _driver(spark: SparkSession) -> str:
    return str(spark.conf.get("spark.driver.host"))


@contextmanager
def _watched(spark: SparkSession, spec: TrainingSpec, world_size: int, listener: Listener) -> Iterator[list[str]]:
    """End the Spark job of this thread when a rank falls silent, `on_event` raises, or the ranks are done and do not end.

    Yields a list for the reason why the ranks have failed.
    """
    context, tag, verdict, is_over = spark.sparkContext, f"mlspark-{uuid.uuid4().hex}", list[str](), threading.Event()
    recovery, began = spec.training.recovery, time.monotonic()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if listener.error is not None:
                listener.stop()
                is_over.wait(_STOP_SECONDS)
            elif reason := _silent_rank(recovery, world_size, listener, began):
                verdict.append(reason)
                listener.deliver(RankSilent(reason))  # it takes seconds to end the others
            elif _are_overdue(recovery, listener):
                logger.warning("the ranks are done, but their Spark tasks do not end: they are ended")
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


def _are_overdue(recovery: RecoverySettings, listener: Listener) -> bool:
    """Return whether all ranks are done, and should long have ended."""
    if not listener.all_are_done:
        return False
    last = max(state.done or 0.0 for state in listener.ranks.values())
    return time.monotonic() - last > recovery.end_seconds + GRACE_SECONDS


def _silent_rank(recovery: RecoverySettings, world_size: int, listener: Listener, began: float) -> str:
    """Return which rank has fallen silent, and how; "" while none has."""
    now = time.monotonic()
    for rank in range(world_size):
        state = listener.ranks.get(rank)
        who = f"rank {rank} of {world_size}"
        if state is None:
            if now - began > recovery.start_seconds:
                return f"{who}: gave no sign of life in the {recovery.start_seconds:g} s since its start"
        elif state.done is None:
            where = f"{who} on {state.host} (process {state.pid})"
            limit = recovery.silent_seconds if state.is_ready else recovery.start_seconds
            if state.closed is None and now - state.seen > limit:
                return f"{where}: silent for {now - state.seen:.0f} s: stopped, or its machine is gone"
            if state.closed is not None and now - state.closed > recovery.silent_seconds:
                return f"{where}: ended {now - state.closed:.0f} s ago, and Spark has not noticed"
    return ""
