"""A child process and all that it starts, for processes that watch over one. Standard library only.

What has been started by a child whose parent is gone becomes a child of the watcher, so that nothing is left behind when the
watcher ends, even what made a session of its own.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_LEFT_SECONDS = 1.0
"""Seconds that processes which a child has left behind may take to end after SIGTERM."""
_LOOK_SECONDS = 0.05
_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent, the child or one that it started, has ended. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def status(process: "subprocess.Popen[bytes]") -> int | None:
    """Return how the child ended, None while it runs; orphans that have ended are taken off the list of processes."""
    while process.returncode is None:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
    return int(process.returncode)


def end_left(group: int) -> None:
    """End the child's process group, and whatever left that group but not this machine."""
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
    """Return the processes whose parent this is: orphans, once the child has ended. Linux only."""
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
