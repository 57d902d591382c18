"""A small process around a stage: python -m mlspark.queue.supervisor FOLDER, started by the worker, which it outlives.

Standard library only. It runs the command in FOLDER/command.json with the output in FOLDER/log, ends it when FOLDER/stop
appears or its seconds are over, leaves no process that the stage has started, and then writes FOLDER/end.json: the one
witness of how the stage ended, whoever reads it and when. While it lives, FOLDER/supervisor.lock is held through a
descriptor that it has inherited.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mlspark import child_processes

STOP_SECONDS = 30.0
"""Seconds that a stage may take to keep what it can after the signal of Ctrl-C, before it is killed."""
VARIABLE = "MLSPARK_ATTEMPT"
"""Environment variable of all processes of a stage: the attempt's folder, by which those that were left are found."""
ENDED, STOPPED, OVER, INTERRUPTED, NOT_STARTED = "ended", "stopped", "over", "interrupted", "not started"
"""Why a stage ended: by itself, asked to, at its limit, because somebody or the machine ends this process; never began."""
_LOOK_SECONDS = 0.05
_PULSE_SECONDS = 5.0
_ROOM_SECONDS = 600.0


def main(folder: Path) -> None:
    """Run the command of an attempt to its end, whatever that is, and write it down."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Also when it is ignored, as in what a shell has put in the background: the stage has to obey it.
        signal.signal(number, lambda received, _: asked.append(received))
    child_processes.adopt_orphans()
    command = json.loads((folder / "command.json").read_text(encoding="utf-8"))
    started = time.monotonic()
    with open(folder / "log", "ab") as log:
        try:
            process = subprocess.Popen(  # noqa: S603 (the command line that was submitted)
                command["command"], cwd=command["folder"], env=_environment(command["environment"], folder),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            log.write(f"{error.filename or command['command'][0]}: {error.strerror}\n".encode())
            return _write_end(folder, {"why": NOT_STARTED, "status": 127, "seconds": 0.0})
    status, why = _watch(process, command, folder, started, asked)
    child_processes.end_left(process.pid)
    seconds = time.monotonic() - started
    return _write_end(folder, {"why": why, "status": status if status >= 0 else 128 - status, "seconds": seconds})


def _environment(submitted: dict[str, str | None], folder: Path) -> dict[str, str]:
    """Return this process's variables, which may hold credentials, with those of the submission in their places."""
    others = {name: value for name, value in os.environ.items() if name not in submitted}
    return others | {name: value for name, value in submitted.items() if value is not None} | {VARIABLE: str(folder)}


def _watch(
    process: "subprocess.Popen[bytes]", command: dict[str, Any], folder: Path, started: float, asked: list[int]
) -> tuple[int, str]:
    """Return the exit status of the stage, -n for signal n, and why it ended."""
    limit = float("inf") if command["seconds"] is None else command["seconds"]
    why, killed_at, pulse_at = ENDED, float("inf"), _PULSE_SECONDS
    while (status := child_processes.status(process)) is None:
        time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - started
        if seconds > pulse_at:
            with contextlib.suppress(OSError):  # no reason to end the stage
                _write(folder / "seconds", seconds)
            pulse_at = seconds + _PULSE_SECONDS
        if why == ENDED:
            is_stopped = (folder / "stop").exists()
            why = STOPPED if is_stopped else OVER if seconds > limit else INTERRUPTED if asked else ENDED
            if why != ENDED:
                # To all of them, as a terminal sends it: Spark's JVM ignores it, and the job's Python ends in order.
                _signal(process, signal.SIGINT)
                killed_at = seconds + command["stop_seconds"]
        elif seconds > killed_at:
            _signal(process, signal.SIGKILL)
    return status, why


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: not permitted when only zombies are left
        os.killpg(process.pid, number)
        os.killpg(process.pid, signal.SIGCONT)


def _write_end(folder: Path, end: dict[str, Any]) -> None:
    """Write down how the stage ended, and wait for room if the disk is full: without it the stage runs again."""
    deadline = time.monotonic() + _ROOM_SECONDS
    while True:
        try:
            return _write(folder / "end.json", end)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _write(file: Path, value: Any) -> None:
    """Write JSON whole or not at all, and have it on disk."""
    begun = file.with_suffix(".tmp")
    with open(begun, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    begun.replace(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
