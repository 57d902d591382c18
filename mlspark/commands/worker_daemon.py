"""What Spark's Python workers on this machine are copies of: a process that has imported modules for all of them.

    python -m mlspark.commands.worker_daemon pyspark.worker

Spark starts it in place of its own `pyspark.daemon` where `python_workers.import_once` says so.
"""

import gc
import os
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module

from pyspark import daemon

from mlspark.python_workers import IMPORTED


def main() -> None:
    """Import what `IMPORTED` names, if it is there, and answer Spark's calls for workers until it ends."""
    with redirect_stdout(sys.stderr):  # Spark reads an address from standard output
        for module in os.environ.get(IMPORTED, "").split(","):
            with suppress(ImportError, ValueError):
                import_module(module)
    gc.freeze()  # a look for garbage would copy the memory that workers share
    daemon.manager()


if __name__ == "__main__":
    main()
