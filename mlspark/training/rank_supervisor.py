"""A small process between a Spark task and its rank: python -m mlspark.training.rank_supervisor COMMAND...

Standard library only. Spark ends a task by killing its Python, which cannot report that. The supervisor sees that its
parent is gone, or is sent SIGTERM itself, and then lets the rank write a checkpoint (SIGTERM), wakes it up if it is
stopped, and kills it at last: no rank is left behind, in whatever state it is. What the rank's code has started ends with
the rank: a process that outlived it would hold the pipe of the rank's output, for whose end the Spark task waits.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

GRACE_SECONDS = 10.0
"""Seconds that a rank may take to end after SIGTERM."""
_LEFT_SECONDS = 1.0
"""Seconds that processes which a rank has left behind may take to end after SIGTERM."""
_LOOK_SECONDS = 0.05
_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def run(command: Sequence[str]) -> int:
    """Return the exit status of `command`, 128 + n when signal n ended it, once it and all that it started are gone."""
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()  # Spark's Python sends SIGHUP to its whole group when it ends, which would kill the rank at once
    _adopt_orphans()
    parent, asked = os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    process = subprocess.Popen(command, start_new_session=True)  # noqa: S603 (the launcher's own)
    deadline = float("inf")
    while (status := _status(process)) is None:
        time.sleep(_LOOK_SECONDS)
        if deadline == float("inf") and (asked or os.getppid() != parent):
            deadline = time.monotonic() + GRACE_SECONDS
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        elif time.monotonic() > deadline:
            process.kill()
    _end_left(process.pid)
    return status if status >= 0 else 128 - status


def _adopt_orphans() -> None:
    """Become the parent of processes whose own parent, the rank or one of its children, has ended. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _status(process: "subprocess.Popen[bytes]") -> int | None:
    """Return how the rank ended, None while it runs; orphans that have ended are taken off the list of processes."""
    while process.returncode is None:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
    return int(process.returncode)


def _end_left(group: int) -> None:
    """End the rank's process group, and whatever left that group but not this machine."""
    number, deadline = signal.SIGTERM, time.monotonic() + _LEFT_SECONDS
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        children = _children()
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # macOS: not permitted when only zombies are left
            os.killpg(group, number)
            os.killpg(group, signal.SIGCONT)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
                os.kill(child, signal.SIGCONT)
        if not children and not _has_members(group):
            return
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        time.sleep(_LOOK_SECONDS)


def _children() -> list[int]:
    """Return the processes whose parent this is: orphans, once the rank has ended. Linux only."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(pid) for pid in listed.split()]


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
