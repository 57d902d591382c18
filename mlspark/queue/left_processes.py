"""Processes of a stage whose supervisor was killed: found by a variable that all of them have inherited. Linux only."""

import contextlib
import os
import signal
import time
from pathlib import Path

from mlspark.queue.supervisor import VARIABLE

_SECONDS = 60.0


def end(attempt: Path) -> None:
    """Kill all processes of an attempt, and return when none is left."""
    deadline = time.monotonic() + _SECONDS
    while (left := of(attempt)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def of(attempt: Path) -> list[int]:
    """Return the ids of the living processes of an attempt, this user's ones."""
    mark = f"{VARIABLE}={attempt}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # Another user's, or gone meanwhile; that of a zombie is empty.
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
