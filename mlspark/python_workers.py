"""Spark's Python workers, made ready before there is work for them. Driver, and a worker what it is made ready with."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from threading import Lock, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

_one_at_a_time = Lock()


def are_here(spark: "SparkSession") -> bool:
    """Return whether tasks run on this machine and leave it a core; on a cluster nobody knows where the first will be."""
    context = spark.sparkContext
    return str(context.master).startswith("local") and context.defaultParallelism > 1


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


def importing(module: str, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Import a module in a worker, if it is there: not every version needs torch; yield what comes."""
    with suppress(ImportError):
        import_module(module)
    yield from batches
