"""The worker of a queue: python -m mlspark.queue.worker FOLDER. It may be killed at any moment.

What it knows is in the queue's file and in the attempts' folders. An attempt is recorded before its supervisor starts, and
the supervisor inherits the lock that says it lives: a worker that takes over finds each attempt running, ended, or lost.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from mlspark import credentials
from mlspark.queue import ends, left_processes, places, supervisor
from mlspark.queue.ends import Ending
from mlspark.queue.job import CANCELLED, CANCELLED_STATUS, FAILED, LOST, RUNNING, TIMED_OUT, Attempt, Job
from mlspark.queue.places import Places
from mlspark.queue.schedules import Schedules
from mlspark.queue.store import Store

logger = logging.getLogger(__name__)

IDLE_SECONDS = 10.0
"""Seconds without anything to do after which the worker ends; who submits starts another one."""
_LOOK_SECONDS = 0.1
_TAIL_BYTES = 65_536
_OF_A_TRACE = re.compile(r"at [\w.$/<>@-]+\(|\.\.\. \d+ more|Caused by: ")
"""Lines of a trace of Java below the one that says what happened."""
_MOST_OF_A_LINE = 300


@dataclass
class Worker:
    """What a worker needs for one look at its queue after the other."""

    places: Places
    store: Store
    waits_until: dict[int, float] = field(default_factory=dict)
    """Job that failed -> moment by the monotonic clock before which it is not run again."""
    looked_at: datetime | None = None
    """Minute in which schedules were looked at last."""
    supervisors: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def look(self) -> bool:
        """Do what there is to do now; return whether any job is open."""
        self.supervisors = [
            process for process in self.supervisors if process.poll() is None
        ]  # takes them off the list
        self._look_at_schedules()
        running = self.store.jobs(states=[RUNNING])
        for job in running:
            self._take_care(job)
        if not running:
            claimed = self.store.claim()
            if claimed is not None:
                self._take_care(claimed)
        return self.store.has_work()

    def _look_at_schedules(self) -> None:
        """Submit what is due, once in each minute by the clock, whatever that says."""
        moment = datetime.now(UTC).replace(tzinfo=None, second=0, microsecond=0)
        if moment == self.looked_at:
            return
        self.looked_at = moment
        schedules = Schedules(self.store)
        for schedule, minute in schedules.due(moment):
            command = [
                sys.executable,
                "-P",
                "-m",
                "mlspark.queue.firing",
                str(self.places.folder),
                schedule.name,
                minute,
            ]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 (our own program)
            if done.returncode:
                schedules.fail(schedule.name, minute, f"could not be submitted; see {self.places.folder}/worker.log")
            logger.info("schedule %s: %s", schedule.name, minute)

    def _take_care(self, job: Job) -> None:
        attempts = self.store.attempts(job)
        if attempts and attempts[-1].state == RUNNING:
            folder = self.places.attempt(job, attempts[-1])
            if not places.is_held(folder / places.LOCK_FILE):
                self._conclude(job, attempts, folder)
            elif job.is_cancelled:
                (folder / places.STOP_FILE).touch()
        elif job.is_cancelled:
            self.store.end(job, CANCELLED, CANCELLED_STATUS, f"{job.current.name}: cancelled")
        elif time.monotonic() >= self.waits_until.get(job.number, 0.0):
            self._begin(job, attempts)

    def _begin(self, job: Job, earlier: list[Attempt]) -> None:
        """Start the stage that is next under a supervisor of its own."""
        limits = job.submission.limits
        left = None if limits.seconds is None else limits.seconds - sum(each.seconds for each in earlier)
        if left is not None and left <= 0:
            self.store.end(job, FAILED, TIMED_OUT, f"{job.current.name}: {limits.why} is over")
            return
        attempt = self.store.begin_attempt(job)
        folder = self.places.attempt(job, attempt)
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / places.SETTINGS_FILE
        settings.write_text(job.submission.settings, encoding="utf-8")
        command = {
            "command": [
                *job.current.command, "--config", str(settings), "--report", str(folder / places.REPORT_FILE),
            ],
            "folder": job.submission.folder,
            "environment": job.submission.environment,
            "seconds": left,
            "stop_seconds": supervisor.STOP_SECONDS,
        }  # fmt: skip
        (folder / places.COMMAND_FILE).write_text(json.dumps(command, indent=1) + "\n", encoding="utf-8")
        with open(folder / places.LOCK_FILE, "ab") as lock, open(self.places.folder / "worker.log", "ab") as log:
            is_ours = places.locked(lock.fileno())
            assert is_ours, f"{folder}: another supervisor"
            self.supervisors.append(
                subprocess.Popen(  # noqa: S603 (our own program)
                    [sys.executable, "-P", "-m", "mlspark.queue.supervisor", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[lock.fileno()],
                )
            )
        logger.info("%s: attempt %d, %s", job.id, attempt.number, job.current.name)

    def _conclude(self, job: Job, attempts: list[Attempt], folder: Path) -> None:
        """Record the end of an attempt whose supervisor is gone, and what follows."""
        attempt = attempts[-1]
        ending = _ending(folder)
        if ending.why == LOST:
            left_processes.end(folder)
        decision = ends.decide(job, attempts[:-1], ending)
        report = folder / places.REPORT_FILE
        if report.exists():
            _copy(report, self.places.report(job, job.current.name))
        ended = replace(
            attempt,
            state=decision.state,
            exit_status=ending.status if ending.why != LOST else None,
            reason=decision.reason,
            seconds=ending.seconds,
        )
        self.waits_until[job.number] = time.monotonic() + decision.wait_seconds
        self.store.end_attempt(
            job,
            ended,
            next_stage=job.stage + decision.is_next_stage,
            end_of_job=decision.end_of_job,
            status_of_job=decision.status_of_job,
        )
        logger.info("%s: attempt %d, %s %s", job.id, attempt.number, decision.state, decision.reason)


def run(queue: Places, *, idle_seconds: float = IDLE_SECONDS) -> None:
    """Run the jobs of a queue until there has been nothing to do for so long, or a signal ends this process."""
    while True:
        with queue.worker() as is_ours:
            if not is_ours:
                return
            with contextlib.closing(Store(queue.database)) as store:
                _run(Worker(queue, store), idle_seconds)
        # What was submitted after the last look, by somebody who still saw this worker alive.
        with contextlib.closing(Store(queue.database)) as store:
            if not store.has_work():
                return


def _run(worker: Worker, idle_seconds: float) -> None:
    last_busy = time.monotonic()
    while time.monotonic() < last_busy + idle_seconds:
        if worker.look():
            last_busy = time.monotonic()
        time.sleep(_LOOK_SECONDS)


def _ending(folder: Path) -> Ending:
    """Return how an attempt ended whose supervisor is gone."""
    end = places.written(folder / places.END_FILE)
    if end is None:
        return Ending(LOST, 1, places.written(folder / places.SECONDS_FILE) or 0.0)
    return Ending(end["why"], end["status"], end["seconds"], _last_line(folder / places.LOG_FILE))


def _last_line(log: Path) -> str:
    """Return the last line of a log that says something, cut; "" where there is none, or it may hold a secret."""
    with open(log, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
        lines = (line.strip() for line in reversed(stream.read().decode(errors="replace").splitlines()))
    line = next((line for line in lines if line and not _OF_A_TRACE.match(line)), "")[:_MOST_OF_A_LINE]
    return "" if credentials.secret_in(line) else line


def _copy(source: Path, target: Path) -> None:
    begun = target.with_suffix(".tmp")
    shutil.copyfile(source, begun)
    begun.replace(target)


def main() -> None:
    """Run the worker of the queue that the command line names; its own lines go to standard error."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the stages go on
    run(Places(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
