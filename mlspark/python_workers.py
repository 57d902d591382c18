"""Spark's Python workers, made ready before there is work for them. Driver, and a worker what it is made ready with."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

IMPORTED = "MLSPARK_WORKERS_IMPORT"
"""Variable of workers' environment: the modules that they have from their start."""
_DAEMON, _OURS = "spark.python.daemon.module", "mlspark.commands.worker_daemon"
_JEMALLOC = "jemalloc_bg_thd"
"""Name of threads that pyarrow's memory has; jemalloc starts them anew in a copy of the process."""
_one_at_a_time = threading.Lock()
_made_ready: list[threading.Thread] = []
is_copy = False
"""Whether this process is a Python worker that is a copy of one that `import_once` has made. Set before it is copied."""


def are_here(spark: "SparkSession") -> bool:
    """Return whether tasks run on this machine and leave it a core; on a cluster nobody knows where the first will be."""
    context = spark.sparkContext
    return str(context.master).startswith("local[") and context.defaultParallelism > 1


def import_once(spark: "SparkSession", modules: Sequence[str]) -> bool:
    """Have the session's workers from now on be copies of a process that has imported modules, those that are there.

    Else each imports them anew, and there is one for each core: 4 processor seconds and 300 MB for torch. What an earlier
    call named is imported, too: a copy of another process has to be made for other modules. Only where workers `are_here`.

    Returns:
        Whether they are: not where Spark was given a daemon in its settings, or anything by `--py-files`: mlspark may reach
        workers with the work then.
    """
    settings: Any = spark._jvm.org.apache.spark.SparkEnv.get().conf()  # type: ignore[union-attr]
    sent = settings.get("spark.submit.pyFiles", "").split(",")  # the jars of spark.jars.packages, too
    if not settings.contains(_DAEMON) and all(not name or name.endswith(".jar") for name in sent):
        settings.set(_DAEMON, _OURS)
    environment = spark.sparkContext.environment
    named = [name for name in environment.get(IMPORTED, "").split(",") if name]
    environment[IMPORTED] = ",".join(dict.fromkeys([*named, *modules]))
    return bool(settings.get(_DAEMON, "") == _OURS)


def can_fork() -> bool:
    """Return whether this process is a worker as `import_once` has them, and has no thread but this one.

    A copy of it has this thread only. It would wait for ever for others, as torch and pyarrow start them for work.
    """
    if not is_copy or sys.platform != "linux":
        return False
    names = [Path("/proc/self/task", thread, "comm").read_text().strip() for thread in os.listdir("/proc/self/task")]
    return sum(name != _JEMALLOC for name in names) == 1


def make_ready(
    spark: "SparkSession", load: "Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]"
) -> threading.Thread:
    """Start a Python worker that loads something, beside this thread; return the thread that waits for it.

    The first task that needs Python finds that worker, as does the next call of this function. What fails here fails again
    in the task, where the user is told of it. Only where workers `are_here`.

    Args:
        spark: the session.
        load: loads it when asked for a batch, and yields the batches that come.
    """

    def wait() -> None:
        with _one_at_a_time, suppress(Exception):
            spark.range(0, 1, 1, 1).mapInArrow(load, "id bigint").collect()

    waiting = threading.Thread(target=wait, name="Python worker made ready")
    waiting.start()
    _made_ready[:] = [*(thread for thread in _made_ready if thread.is_alive()), waiting]
    return waiting


def wait_ready() -> None:
    """Wait until each worker is ready that `make_ready` was asked for: until then it takes a place for a task."""
    for thread in list(_made_ready):
        thread.join()


def importing(modules: Sequence[str], batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Import modules in a worker, see `import_all`; yield what comes."""
    import_all(modules)
    yield from batches


def import_all(modules: Sequence[str]) -> None:
    """Import modules, those that can be: not every version needs torch, and what needs one that cannot be fails of it."""
    for module in modules:
        with suppress(Exception):
            import_module(module)
