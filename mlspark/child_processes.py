"""A child process and all that it starts, for processes that watch over one. Standard library only.

What has been started by a child whose parent is gone becomes a child of the watcher, so that nothing is left behind when the
watcher ends, even what made a session of its own.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import io
import os
import signal
import sys
import threading
import time
import traceback
import weakref
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

    It ends as an interpreter does that has run the work as its program. It has its own session, the null device as standard
    input and in place of each file that is open here, and SIGTERM ends it. Only of a process with one thread and without
    children, see `python_workers.can_fork`. Linux only.

    Args:
        work: what it does.
        output: an open file, for what it prints.
    """

    def __init__(self, work: Callable[[], object], output: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            _end(_apart(work, output))

    def poll(self) -> int | None:
        """Return how it ended, -n by signal n; None while it runs."""
        return self._look(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""
        return int(self._look(0) or 0)

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, signal.SIGTERM)

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _apart(work: Callable[[], object], output: int) -> int:
    """Do the work of a copy, without what is its parent's; return its exit status."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # such as remove the parent's folders
        faulthandler.disable()  # Spark's writes to a file of the parent's
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(null, 0)
        for name in os.listdir("/proc/self/fd"):
            # Not closed: objects here have their numbers, which would be those of other files soon.
            if int(name) > 2 and int(name) != null:
                os.dup2(null, int(name), inheritable=False)
        sys.stdin = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115
        if os.environ.get("PYTHONFAULTHANDLER") or sys.flags.dev_mode:
            faulthandler.enable()
        work()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(status: int) -> None:
    """End a copy as Python ends: threads, functions that are to be called, files that hold something to be written."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for each in gc.get_objects():
            if issubclass(type(each), io.IOBase):  # not isinstance, which asks objects that stand for others
                with contextlib.suppress(Exception):  # of a user's own kind
                    if not each.closed and each.writable():
                        each.flush()
    finally:
        os._exit(status)


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
