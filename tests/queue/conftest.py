"""Queues in temporary folders, jobs of small programs, and workers that do not outlive the test."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlspark.queue.job import Attempt, Job, Limits, Stage, Submission
from mlspark.queue.places import Places
from mlspark.queue.store import Store

from ..conftest import is_alive, wait_until

AT_ONCE = Limits(retries=2, retry_after=0.0)


def submission(
    *programs: str, limits: Limits = AT_ONCE, identity: str = "0123456789abcdef", folder: str = "/"
) -> Submission:
    """A job whose stages are Python programs, the first called prepare, the second train and so on."""
    names = ("prepare", "train", "promote", "score", "monitor")
    stages = tuple(Stage(name, (sys.executable, "-c", text)) for name, text in zip(names, programs, strict=False))
    return Submission("fake", stages, "local", folder, {}, "name: fake\n", identity, True, limits)


class Queue:
    """A queue with what a test asks of it."""

    def __init__(self, folder: Path) -> None:
        self.places = Places(folder)
        self.store = Store(self.places.database)
        self._workers: list[subprocess.Popen[bytes]] = []

    def submit(self, *programs: str, limits: Limits = AT_ONCE, folder: str = "/") -> Job:
        identity = f"{len(self.store.jobs()):016}"
        return self.store.submit(submission(*programs, limits=limits, identity=identity, folder=folder))[0]

    def start_worker(self) -> "subprocess.Popen[bytes]":
        with open(self.places.folder / "worker.log", "ab") as log:
            command = [sys.executable, "-m", "mlspark.queue.worker", str(self.places.folder)]
            self._workers.append(subprocess.Popen(command, stderr=log, start_new_session=True))
        return self._workers[-1]

    def job(self, job: Job) -> Job:
        return self.store.job(job.id)

    def ended(self, job: Job) -> Job:
        """Wait for the end of a job, which a worker must be there for."""
        wait_until(lambda: not self.job(job).is_open)
        return self.job(job)

    def attempts(self, job: Job) -> list[Attempt]:
        return self.store.attempts(job)

    def states(self, job: Job) -> list[str]:
        return [each.state for each in self.attempts(job)]

    def log(self, job: Job, number: int) -> str:
        return (self.places.attempt(job, self.attempts(job)[number - 1]) / "log").read_text()

    def close(self) -> None:
        """End the workers, and the stages by their supervisors."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
        for job in self.store.jobs(states=["running"]):
            for attempt in self.attempts(job):
                folder = self.places.attempt(job, attempt)
                with contextlib.suppress(FileNotFoundError):
                    (folder / "stop").touch()
        self.store.close()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path / "queue")
    yield made
    made.close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
