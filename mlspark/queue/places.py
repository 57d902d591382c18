"""Where everything of a queue stands below its folder, and the locks by which one process knows that another lives."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlspark.errors import ConfigError, StorageError
from mlspark.queue.job import RUNNING, Attempt, Job

VARIABLE = "MLSPARK_QUEUE"
_DATABASE = "queue.sqlite"
_WORKER_SECONDS = 1.0
"""Seconds that a worker tries for its lock, which others hold for a moment when they ask whether there is a worker."""
_START_SECONDS = 2.0
"""Seconds after which those who wait for a job start a worker once more."""

END_FILE, STOP_FILE, COMMAND_FILE, LOCK_FILE = "end.json", "stop", "command.json", "supervisor.lock"
LOG_FILE, REPORT_FILE, SETTINGS_FILE, SECONDS_FILE = "log", "report.json", "settings.yaml", "seconds"
"""Files of an attempt."""


class Places:
    """A queue's folder and what is in it."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where there is none, for its owner alone: logs may say what nobody else is to read.

        Raises:
            StorageError: it cannot be made.
        """
        self.folder = folder.absolute()
        self._start_again_at = 0.0
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{folder}: cannot be made ({error.strerror}); set {VARIABLE} to a folder that is yours"
            ) from error

    @property
    def database(self) -> Path:
        return self.folder / _DATABASE

    def job(self, job: Job) -> Path:
        return self.folder / "jobs" / job.id

    def attempt(self, job: Job, attempt: Attempt) -> Path:
        """Return the folder of an attempt: its number, and the stage for people to see."""
        return self.job(job) / f"{attempt.number:03}-{job.submission.stages[attempt.stage].name}"

    def report(self, job: Job, stage: str) -> Path:
        """Return where the report of a stage is kept, once it has succeeded."""
        return self.job(job) / f"{stage}.json"

    def seconds(self, job: Job, attempt: Attempt) -> float:
        """Return how long an attempt took, or has run when its supervisor last said so, every five seconds."""
        said = written(self.attempt(job, attempt) / SECONDS_FILE) if attempt.state == RUNNING else attempt.seconds
        return float(said or 0.0)

    @contextmanager
    def worker(self) -> Iterator[bool]:
        """Be the queue's worker while the context lasts; yield False where another one is."""
        with open(self.folder / "worker.lock", "ab") as file:
            deadline = time.monotonic() + _WORKER_SECONDS
            while not (is_ours := locked(file.fileno())) and time.monotonic() < deadline:
                time.sleep(0.05)
            if is_ours:  # for people: `kill $(cat worker.lock)` ends it, and no stage
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
                file.flush()
            yield is_ours

    def has_worker(self) -> bool:
        """Return whether a worker lives."""
        return is_held(self.folder / "worker.lock")

    def start_worker(self) -> None:
        """Start a worker where none lives: a process in a session of its own, which ends when nothing is left to do.

        One that this object has just started is given time: it may not have its lock yet, or has ended because of an error.
        """
        if time.monotonic() < self._start_again_at or self.has_worker():
            return
        self._start_again_at = time.monotonic() + _START_SECONDS
        command = [sys.executable, "-P", "-m", "mlspark.queue.worker", str(self.folder)]
        with open(self.folder / "worker.log", "ab") as log:
            process = subprocess.Popen(  # noqa: S603 (our own program)
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        process.returncode = 0  # it goes on when this process ends, which nobody needs to be warned of


def default() -> Places:
    """Return the queue in $MLSPARK_QUEUE, else in .mlspark/queue of the working folder. Raises StorageError."""
    return Places(_folder())


def existing() -> Places:
    """Return the same, for those who ask about jobs. Raises ConfigError where none was ever submitted."""
    if not (_folder() / _DATABASE).exists():
        raise ConfigError(
            f"{_folder().absolute()}: holds no queue; go to the folder where jobs were submitted, or set {VARIABLE}"
        )
    return default()


def _folder() -> Path:
    return Path(os.environ.get(VARIABLE) or ".mlspark/queue")


def written(file: Path) -> Any:
    """Return the JSON in a file; None where there is none, or none that the machine has kept when it went down."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def locked(descriptor: int) -> bool:
    """Lock an open file for this process and those that inherit the descriptor; return False where another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(file: Path) -> bool:
    """Return whether a living process has `file` locked: a lock goes with its last process, however that ended."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
