"""What the queue knows of a job, of its stages and of the attempts at them. Runs anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = "queued", "running", "succeeded", "failed", "cancelled"
OPEN = (QUEUED, RUNNING)
"""States of a job that has not ended."""

LOST, INTERRUPTED = "lost", "interrupted"
"""States of an attempt, beside those of a job, of which nobody knows how it would have ended; it is made again."""

TIMED_OUT = 124
"""Exit status of a job that was ended by its time limit or its budget, as of timeout(1)."""
CANCELLED_STATUS = 130
"""Exit status of a job that was cancelled, as of a program ended by Ctrl-C."""


@dataclass(frozen=True)
class Stage:
    """One program of a job."""

    name: str
    command: tuple[str, ...]
    """Command line without --config and --report, which each attempt gets for itself."""


@dataclass(frozen=True)
class Limits:
    """How often a stage is tried, and for how long the job may run; queueing counts for nothing."""

    retries: int = 2
    """How often a stage that failed is run again, where the failure may pass."""
    retry_after: float = 10.0
    """Seconds before the first of them; each later one waits twice as long."""
    seconds: float | None = None
    """Most seconds that all stages may run, all attempts together; None: as long as it takes."""
    why: str = ""
    """What the limit is, in words: "time limit of 7,200 s", "budget of 5.00 USD"."""


@dataclass(frozen=True)
class Submission:
    """A job as it was asked for."""

    pipeline: str
    """Name of the pipeline."""
    stages: tuple[Stage, ...]
    target: str
    folder: str
    """Working folder of the stages."""
    environment: Mapping[str, str | None]
    """Variables as they were where the job was submitted, None where unset; none of them is a secret."""
    settings: str
    """Settings as YAML, as they were when the job was submitted."""
    identity: str
    """SHA-256 of all above and of what it reads."""
    is_seen: bool
    """Whether all that it reads can be seen from here, so that the same identity means the same result."""
    limits: Limits = Limits()


@dataclass(frozen=True)
class Job:
    """A submitted job as it stands."""

    number: int
    """Place in the order of submission."""
    id: str
    submission: Submission
    state: str
    stage: int
    """Position of the stage that runs or is next."""
    round: int
    """1, and one more with each `mlspark retry`."""
    is_cancelled: bool
    """Whether somebody wants it to end; so it will, unless its last stage has just succeeded."""
    exit_status: int | None
    reason: str
    """Why it ended as it did; empty when it succeeded or has not ended."""
    submitted: str
    ended: str | None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def current(self) -> Stage:
        return self.submission.stages[self.stage]


@dataclass(frozen=True)
class Attempt:
    """One run of a stage."""

    job: int
    stage: int
    number: int
    """From 1, over all rounds of the job."""
    round: int
    state: str
    exit_status: int | None
    reason: str
    seconds: float
    """How long it ran by a clock that nobody sets; 0 while it runs."""
    started: str
    ended: str | None


def to_json(job: Job, attempts: list[Attempt]) -> dict[str, Any]:
    """Return a job as JSON, with its attempts in order."""
    asked = job.submission
    return {
        "id": job.id,
        "pipeline": asked.pipeline,
        "stages": [stage.name for stage in asked.stages],
        "target": asked.target,
        "state": job.state,
        "stage": job.current.name,
        "exit_status": job.exit_status,
        "reason": job.reason,
        "submitted": job.submitted,
        "ended": job.ended,
        "seconds": round(sum(each.seconds for each in attempts), 3),
        "attempts": [
            {
                "stage": asked.stages[each.stage].name,
                "number": each.number,
                "state": each.state,
                "exit_status": each.exit_status,
                "reason": each.reason,
                "seconds": round(each.seconds, 3),
                "started": each.started,
                "ended": each.ended,
            }
            for each in attempts
        ],
    }
