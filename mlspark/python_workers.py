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
_tasks = 0
"""Tasks that may have left something in this worker; counted in copies of a process that `import_once` has made."""


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
    settings = _settings(spark)
    sent = settings.get("spark.submit.pyFiles", "").split(",")  # the jars of spark.jars.packages, too
    is_all_here = all(not name or name.endswith(".jar") for name in sent)
    # Elsewhere than on Linux a copy of a process that has loaded libraries may crash.
    if is_all_here and sys.platform == "linux" and not settings.contains(_DAEMON):
        settings.set(_DAEMON, _OURS)
    environment = spark.sparkContext.environment
    named = [name for name in environment.get(IMPORTED, "").split(",") if name]
    environment[IMPORTED] = ",".join(dict.fromkeys([*named, *modules]))
    return bool(settings.get(_DAEMON, "") == _OURS and settings.get("spark.python.use.daemon", "true") == "true")


def import_none(spark: "SparkSession") -> None:
    """Undo `import_once`: where workers have no mlspark, none could be started."""
    settings = _settings(spark)
    if settings.get(_DAEMON, "") == _OURS:
        settings.remove(_DAEMON)
    spark.sparkContext.environment.pop(IMPORTED, None)


def _settings(spark: "SparkSession") -> Any:
    """Return the SparkConf that workers are started by."""
    return spark._jvm.org.apache.spark.SparkEnv.get().conf()  # type: ignore[union-attr]


def count_task() -> None:
    """Note in a worker that it is given a task: it may import, set or start something that a copy would have too."""
    global _tasks
    _tasks += 1


def leaves_nothing() -> None:
    """Note in a worker that its task leaves nothing in it that matters."""
    global _tasks
    _tasks -= 1


def can_fork() -> bool:
    """Return whether this process may be copied, within a task: a worker as `import_once` has them, as it was at its start.

    That is, no other task has left anything in it, and it has no thread but this one, as torch and pyarrow start them for
    work: a copy has this thread only, and would wait for ever for others.
    """
    if _tasks != 1:
        return False
    try:
        names = [
            Path("/proc/self/task", thread, "comm").read_text().strip() for thread in os.listdir("/proc/self/task")
        ]
    except OSError:  # one has just ended
        return False
    return sum(name != _JEMALLOC for name in names) == 1


def make_ready(
    spark: "SparkSession", load: "Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]"
) -> threading.Thread:
    """Start a Python worker that loads something, beside this thread; return the thread that waits for it.

    The first task that needs Python finds that worker where no other is idle, as does the next call of this function. What
    fails here fails again in the task, where the user is told of it. Only where workers `are_here`.

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
    leaves_nothing()
    yield from batches


def import_all(modules: Sequence[str]) -> None:
    """Import modules, those that can be: not every version needs torch, and what needs one that cannot be fails of it."""
    for module in modules:
        with suppress(Exception):
            import_module(module)
