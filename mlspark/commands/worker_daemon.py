"""What Spark's Python workers on this machine are copies of: a process that has imported modules for all of them.

    python -m mlspark.commands.worker_daemon pyspark.worker

Spark starts it in place of its own `pyspark.daemon` where `python_workers.import_once` says so.
"""

import gc
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy
from pyspark import daemon, worker

from mlspark import python_workers


def main() -> None:
    """Import what `IMPORTED` names and answer Spark's calls for workers until it ends."""
    output = os.dup(1)  # Spark reads an address from it, so nothing that is imported may print there
    os.dup2(2, 1)
    with redirect_stdout(sys.stderr):
        python_workers.import_all(os.environ.get(python_workers.IMPORTED, "").split(","))
    os.dup2(output, 1)
    os.close(output)
    worker.main = _counted(worker.main)
    gc.freeze()  # a look for garbage would copy the memory that workers share
    daemon.manager()


def _counted(work: Callable[..., object]) -> Callable[..., object]:
    """Return the function of workers that does a task, which counts those, and has no two workers draw the same numbers."""
    is_seeded = False

    def counted(*files: Any) -> object:
        nonlocal is_seeded
        if not is_seeded:
            numpy.random.seed()
            is_seeded = True
        python_workers.count_task()
        return work(*files)

    return counted


if __name__ == "__main__":
    main()
