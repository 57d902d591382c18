"""Jobs and attempts as the queue's file has them. Each change is one transaction, on disk when the call returns."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlspark.errors import ConfigError
from mlspark.queue.database import Database, now
from mlspark.queue.job import (
    CANCELLED,
    CANCELLED_STATUS,
    OPEN,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    Attempt,
    Job,
    Limits,
    Stage,
    Submission,
)  # fmt: skip


class Store:
    """The jobs in a queue's file, and the attempts at their stages."""

    def __init__(self, file: Path) -> None:
        """Open the file, and make it where there is none; raises as Database does."""
        self.database = Database(file)

    def close(self) -> None:
        self.database.close()

    def submit(self, submission: Submission, *, is_again: bool = False) -> tuple[Job, bool]:
        """Return the job for `submission`, and whether it is new.

        It is the newest with the same identity, if that has not ended, or has succeeded and `is_again` is not asked for and
        all that it reads could be seen.
        """
        with self.database.transaction():
            known = self._one("SELECT * FROM jobs WHERE identity = ? ORDER BY number DESC LIMIT 1", submission.identity)
            if known is not None and (
                known.is_open or (known.state == SUCCEEDED and submission.is_seen and not is_again)
            ):
                return known, False
            return self.add(submission), True

    def add(self, submission: Submission) -> Job:
        """Return a new job, whatever others there are; within a transaction."""
        job_id = self._free_id(f"{submission.pipeline}-{submission.identity[:8]}")
        number = self.database.execute(
            "INSERT INTO jobs (id, identity, submission, state, submitted) VALUES (?, ?, ?, ?, ?)",
            (job_id, submission.identity, json.dumps(asdict(submission)), QUEUED, now()),
        ).lastrowid
        job = self._one("SELECT * FROM jobs WHERE number = ?", number)
        assert job is not None
        return job

    def job(self, job_id: str) -> Job:
        """Return the job with this id, or the only one whose id begins so.

        Raises:
            ConfigError: there is none, or there are several.
        """
        with self.database.problems():
            jobs = self._all("SELECT * FROM jobs WHERE id = ?", job_id) or self._all(
                "SELECT * FROM jobs WHERE substr(id, 1, length(?)) = ? ORDER BY number DESC", job_id, job_id
            )
        if len(jobs) == 1:
            return jobs[0]
        if jobs:
            some = ", ".join(job.id for job in jobs[:3])
            raise ConfigError(f"{job_id}: {len(jobs)} jobs begin so ({some}, ...); give the whole id")
        raise ConfigError(f"{job_id}: no such job in {self.database.file.parent}; `mlspark jobs` lists them")

    def jobs(self, *, most: int = -1, states: Sequence[str] = ()) -> list[Job]:
        """Return the newest `most` jobs (all: -1), those in `states` where given, in the order of submission."""
        wanted = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        with self.database.problems():
            found = self._all(f"SELECT * FROM jobs {wanted} ORDER BY number DESC LIMIT ?", *states, most)  # noqa: S608
        return found[::-1]

    def attempts(self, job: Job) -> list[Attempt]:
        """Return the attempts at the stages of a job, in order."""
        with self.database.problems():
            rows = self.database.execute("SELECT * FROM attempts WHERE job = ? ORDER BY number", (job.number,))
            return [Attempt(**dict(row)) for row in rows]

    def ends(self, job: Job) -> list[dict[str, Any]]:
        """Return how the job ended, once for each of its rounds: state, exit_status, reason, at."""
        with self.database.problems():
            rows = self.database.execute("SELECT * FROM ends WHERE job = ? ORDER BY round", (job.number,))
            return [dict(row) for row in rows]

    def claim(self) -> Job | None:
        """Return the oldest queued job, which now runs; None where there is none."""
        if not self.jobs(states=[QUEUED]):  # asked ten times a second, and a transaction keeps others from writing
            return None
        with self.database.transaction():
            job = self._one("SELECT * FROM jobs WHERE state = ? ORDER BY number LIMIT 1", QUEUED)
            if job is None:
                return None
            self.database.execute("UPDATE jobs SET state = ? WHERE number = ?", (RUNNING, job.number))
            return self._one("SELECT * FROM jobs WHERE number = ?", job.number)

    def begin_attempt(self, job: Job) -> Attempt:
        """Record that an attempt at the job's stage begins, before anything of it is started."""
        with self.database.transaction():
            number = 1 + len(self.attempts(job))
            self.database.execute(
                "INSERT INTO attempts (job, stage, number, round, state, started) VALUES (?, ?, ?, ?, ?, ?)",
                (job.number, job.stage, number, job.round, RUNNING, now()),
            )
            return self.attempts(job)[-1]

    def end_attempt(
        self, job: Job, attempt: Attempt, *, next_stage: int, end_of_job: str | None = None, status_of_job: int = 0
    ) -> None:
        """Record how an attempt ended and what becomes of the job, in one step.

        Args:
            job: the job.
            attempt: with its state, exit status, reason and seconds.
            next_stage: position of the stage that is next.
            end_of_job: state of the job if this was its end.
            status_of_job: its exit status then.
        """
        with self.database.transaction():
            changed = self.database.execute(
                "UPDATE attempts SET state = ?, exit_status = ?, reason = ?, seconds = ?, ended = ? "
                "WHERE job = ? AND number = ? AND state = ?",
                (
                    attempt.state, attempt.exit_status, attempt.reason, attempt.seconds, now(),
                    job.number, attempt.number, RUNNING,
                ),
            ).rowcount  # fmt: skip
            assert changed == 1, f"{job.id}: attempt {attempt.number} has ended already"
            self.database.execute("UPDATE jobs SET stage = ? WHERE number = ?", (next_stage, job.number))
            if end_of_job is not None:
                self._end(job, end_of_job, status_of_job, attempt.reason)

    def end(self, job: Job, state: str, exit_status: int, reason: str) -> None:
        """Record the end of a job of which no attempt runs."""
        with self.database.transaction():
            self._end(job, state, exit_status, reason)

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job; one that does not run yet has ended at once. Return it as it stands then."""
        with self.database.transaction():
            job = self.job(job_id)
            if job.state == QUEUED:
                self._end(job, CANCELLED, CANCELLED_STATUS, "cancelled before it ran")
            elif job.state == RUNNING:
                self.database.execute("UPDATE jobs SET is_cancelled = 1 WHERE number = ?", (job.number,))
            return self.job(job.id)

    def retry(self, job_id: str, *, limits: Limits | None = None) -> Job:
        """Queue a job that failed or was cancelled once more, from the stage that did not succeed.

        Args:
            job_id: the job.
            limits: in place of those it has.

        Raises:
            ConfigError: it has not ended, or has succeeded.
        """
        with self.database.transaction():
            job = self.job(job_id)
            if job.is_open:
                raise ConfigError(f"{job.id}: is {job.state}; wait for its end, or cancel it first")
            if job.state == SUCCEEDED:
                raise ConfigError(f"{job.id}: has succeeded; `mlspark submit --again` runs the same once more")
            content = asdict(job.submission) | ({"limits": asdict(limits)} if limits else {})
            self.database.execute(
                "UPDATE jobs SET state = ?, round = round + 1, is_cancelled = 0, exit_status = NULL, reason = '', "
                "ended = NULL, submission = ? WHERE number = ?",
                (QUEUED, json.dumps(content), job.number),
            )
            return self.job(job.id)

    def has_work(self) -> bool:
        """Return whether there is anything to do, now or when a schedule says so."""
        with self.database.problems():
            marks = ", ".join("?" * len(OPEN))
            query = f"SELECT EXISTS (SELECT 1 FROM schedules) OR EXISTS (SELECT 1 FROM jobs WHERE state IN ({marks}))"  # noqa: S608
            return bool(self.database.execute(query, OPEN).fetchone()[0])

    def _end(self, job: Job, state: str, exit_status: int, reason: str) -> None:
        at = now()
        changed = self.database.execute(
            "UPDATE jobs SET state = ?, exit_status = ?, reason = ?, ended = ? WHERE number = ? AND state IN (?, ?)",
            (state, exit_status, reason, at, job.number, *OPEN),
        ).rowcount
        assert changed == 1, f"{job.id}: has ended already"
        self.database.execute(
            "INSERT INTO ends (job, round, state, exit_status, reason, at) VALUES (?, ?, ?, ?, ?, ?)",
            (job.number, job.round, state, exit_status, reason, at),
        )

    def _free_id(self, wanted: str) -> str:
        job_id, number = wanted, 1
        while self._one("SELECT * FROM jobs WHERE id = ?", job_id) is not None:
            number += 1
            job_id = f"{wanted}-{number}"
        return job_id

    def _one(self, query: str, *values: Any) -> Job | None:
        return next(iter(self._all(query, *values)), None)

    def _all(self, query: str, *values: Any) -> list[Job]:
        return [_job(row) for row in self.database.execute(query, values)]


def _job(row: sqlite3.Row) -> Job:
    asked = json.loads(row["submission"])
    stages = tuple(Stage(stage["name"], tuple(stage["command"])) for stage in asked.pop("stages"))
    limits = Limits(**asked.pop("limits"))
    return Job(
        number=row["number"],
        id=row["id"],
        submission=Submission(stages=stages, limits=limits, **asked),
        state=row["state"],
        stage=row["stage"],
        round=row["round"],
        is_cancelled=bool(row["is_cancelled"]),
        exit_status=row["exit_status"],
        reason=row["reason"],
        submitted=row["submitted"],
        ended=row["ended"],
    )
