"""What becomes of a job when a stage has ended: the next stage, another attempt, or the job's end. Pure; runs anywhere."""

from dataclasses import dataclass

from mlspark.queue import supervisor
from mlspark.queue.job import (
    CANCELLED,
    CANCELLED_STATUS,
    FAILED,
    INTERRUPTED,
    LOST,
    SUCCEEDED,
    TIMED_OUT,
    Attempt,
    Job,
)  # fmt: skip

MOST_LOSSES = 10
"""How often a stage is run again that was lost or interrupted, whatever its retries are; a stage that takes the machine down
with it must come to an end."""
_SIGNALLED = 128


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, as its supervisor has written it down; `why` is LOST where the supervisor is gone without."""

    why: str
    status: int
    seconds: float
    last_line: str = ""
    """Of the log: the message of a job that ended with status 2."""


@dataclass(frozen=True)
class Decision:
    """What is recorded of an attempt, and what becomes of its job."""

    state: str
    """Of the attempt."""
    reason: str = ""
    end_of_job: str | None = None
    """State of the job if this is its end."""
    status_of_job: int = 0
    is_next_stage: bool = False
    wait_seconds: float = 0.0
    """Before the next attempt."""


def may_pass(status: int) -> bool:
    """Return whether a failure may pass when the same is run again.

    Not status 2, what the user has to correct, 3, an alarm of monitor, 126 and 127, no such program. But 1, a fault of the
    program, as Spark fails when a node or a connection is lost, and a signal: out of memory, a node that is shut down.
    """
    return status not in (0, 2, 3, 126, 127)


def meaning(status: int) -> str:
    """Return what an exit status of a stage means, in words."""
    if status > _SIGNALLED:
        return f"ended by signal {status - _SIGNALLED}"
    known = {2: "to be corrected", 3: "an alarm", 126: "no program", 127: "no such program"}
    return f"exit status {status}, {known.get(status, 'a fault')}"


def decide(job: Job, earlier: list[Attempt], ending: Ending) -> Decision:
    """Return what follows from the end of an attempt.

    Args:
        job: as it stands, with what somebody wants of it.
        earlier: its attempts before this one.
        ending: of this one.
    """
    stage = job.current.name
    here = [each for each in earlier if each.stage == job.stage and each.round == job.round]
    is_last = job.stage == len(job.submission.stages) - 1
    if ending.status == 0 and ending.why != LOST:
        if is_last:
            return Decision(SUCCEEDED, end_of_job=SUCCEEDED)
        if job.is_cancelled:
            return Decision(SUCCEEDED, f"cancelled after {stage}", CANCELLED, CANCELLED_STATUS)
        return Decision(SUCCEEDED, is_next_stage=True)
    if job.is_cancelled:
        return Decision(CANCELLED, f"{stage}: cancelled", CANCELLED, CANCELLED_STATUS)
    limits = job.submission.limits
    if ending.why == supervisor.OVER:
        return Decision(FAILED, f"{stage}: {limits.why} is over", FAILED, TIMED_OUT)
    if ending.why in (LOST, supervisor.INTERRUPTED):
        return _run_again(stage, here, ending)
    reason = f"{stage}: {meaning(ending.status)}" + (f": {ending.last_line}" if ending.last_line else "")
    failures = sum(each.state == FAILED for each in here)
    if not may_pass(ending.status) or failures >= limits.retries:
        return Decision(FAILED, reason, FAILED, ending.status)
    return Decision(FAILED, reason, wait_seconds=limits.retry_after * 2**failures)


def _run_again(stage: str, here: list[Attempt], ending: Ending) -> Decision:
    is_lost = ending.why == LOST
    state, what = (LOST, "lost: the machine or its processes went down") if is_lost else (INTERRUPTED, "interrupted")
    losses = 1 + sum(each.state in (LOST, INTERRUPTED) for each in here)
    if losses > MOST_LOSSES:
        return Decision(state, f"{stage}: {what}, {losses} times", FAILED, 1)
    return Decision(state, f"{stage}: {what}; it runs again")
