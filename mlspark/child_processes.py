"""A child process and all that it starts, for processes that watch over one. Standard library only.

What has been started by a child whose parent is gone becomes a child of the watcher, so that nothing is left behind when the
watcher ends, even what made a session of its own.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_LEFT_SECONDS = 1.0
"""Seconds that processes which a child has left behind may take to end after SIGTERM."""
_LOOK_SECONDS = 0.05
_SET_NAME, _SET_CHILD_SUBREAPER = 15, 36  # linux/prctl.h


class Child(Protocol):
    """A process that this one has started: `subprocess.Popen`, or `Forked`."""

    pid: int
    returncode: int | None


class Forked:
    """A child that is a copy of this process and does other work: what has been imported here need not be there.

    It has its own session, the null device as standard input, no file that is open here, and none of the functions that
    this process is to call at its end. Safe where this process has no other thread, see `python_workers.can_fork`.

    Args:
        work: what it does. It ends with status 1 on an exception, and otherwise as `sys.exit` says.
        output: an open file, for what it prints.
    """

    def __init__(self, work: Callable[[], object], output: int) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=_apart, args=(work, output))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, -n by signal n; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""
        self._process.join()
        return int(self._process.exitcode or 0)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()


def _apart(work: Callable[[], object], output: int) -> None:
    """Do the work of a copy, without what is its parent's."""
    gc.collect()  # what nobody has closes its files now, not those that get their numbers later
    atexit._clear()
    faulthandler.disable()  # Spark's writes to a file
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for file, number in ((null, 0), (output, 1), (output, 2)):
        os.dup2(file, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the folder that was listed
                os.close(int(name))
    try:
        work()
    finally:
        atexit._run_exitfuncs()


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent, the child or one that it started, has ended. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_name(name: str) -> None:
    """Give this process a name of up to 15 letters, as `top` and `ps -e` show it. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_NAME, name.encode(), 0, 0, 0)


def status(process: Child) -> int | None:
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
