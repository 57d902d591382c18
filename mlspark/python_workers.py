"""Spark's Python workers, made ready before there is work for them. Driver, and a worker what it is made ready with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

IMPORTED = "MLSPARK_WORKERS_IMPORT"
"""Variable of workers' environment: the modules that they have from their start."""
_DAEMON = "spark.python.daemon.module"
_one_at_a_time = Lock()


def are_here(spark: "SparkSession") -> bool:
    """Return whether tasks run on this machine and leave it a core; on a cluster nobody knows where the first will be."""
    context = spark.sparkContext
    return str(context.master).startswith("local") and context.defaultParallelism > 1


def import_once(spark: "SparkSession", modules: Sequence[str]) -> None:
    """Have the session's workers from now on be copies of a process that has imported modules, those that are there.

    Else each imports them anew, and there is one for each core: 4 processor seconds and 300 MB for torch. A daemon that
    Spark was given in its settings stays. Only where workers `are_here`, and not with `--py-files`: mlspark may reach
    workers with the work then.
    """
    settings: Any = spark._jvm.org.apache.spark.SparkEnv.get().conf()  # type: ignore[union-attr]
    sent = settings.get("spark.submit.pyFiles", "").split(",")  # the jars of spark.jars.packages, too
    if not settings.contains(_DAEMON) and all(not name or name.endswith(".jar") for name in sent):
        settings.set(_DAEMON, "mlspark.commands.worker_daemon")
    spark.sparkContext.environment[IMPORTED] = ",".join(modules)


def make_ready(spark: "SparkSession", load: "Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]") -> Thread:
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

    waiting = Thread(target=wait, name="Python worker made ready")
    waiting.start()
    return waiting


def importing(modules: Sequence[str], batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Import modules in a worker, see `import_all`; yield what comes."""
    import_all(modules)
    yield from batches


def import_all(modules: Sequence[str]) -> None:
    """Import modules, those that can be: not every version needs torch, and what needs one that cannot be fails of it."""
    for module in modules:
        with suppress(Exception):
            import_module(module)
