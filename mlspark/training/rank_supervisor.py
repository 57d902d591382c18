"""A small process between a Spark task and its rank: python -m mlspark.training.rank_supervisor COMMAND...

Standard library only. Spark ends a task by killing its Python, which cannot report that. The supervisor sees that its
parent is gone, or is sent SIGTERM itself, and then lets the rank write a checkpoint (SIGTERM), wakes it up if it is
stopped, and kills it at last: no rank is left behind, in whatever state it is. What the rank's code has started ends with
the rank: a process that outlived it would hold the pipe of the rank's output, for whose end the Spark task waits.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from mlspark import child_processes
from mlspark.child_processes import Child

GRACE_SECONDS = 10.0
"""Seconds that a rank may take to end after SIGTERM."""
_LOOK_SECONDS = 0.05


def run(start: Callable[[], Child]) -> int:
    """Return the exit status of a rank, 128 + n when signal n ended it, once it and all that it started are gone.

    Args:
        start: starts the rank, in a session of its own.
    """
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()  # Spark's Python sends SIGHUP to its whole group when it ends, which would kill the rank at once
    child_processes.adopt_orphans()
    parent, asked = os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    process = start()
    deadline = float("inf")
    while (status := child_processes.status(process)) is None:
        time.sleep(_LOOK_SECONDS)
        if deadline == float("inf") and (asked or os.getppid() != parent):
            deadline = time.monotonic() + GRACE_SECONDS
            os.kill(process.pid, signal.SIGTERM)
            os.kill(process.pid, signal.SIGCONT)
        elif time.monotonic() > deadline:
            os.kill(process.pid, signal.SIGKILL)
    child_processes.end_left(process.pid)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(run(lambda: subprocess.Popen(sys.argv[1:], start_new_session=True)))  # noqa: S603 (the launcher's own)
