"""What follows from the end of an attempt, by hand."""

import pytest

from mlspark.queue import ends
from mlspark.queue.ends import Decision, Ending
from mlspark.queue.job import Attempt, Job, Limits, Submission

from .conftest import submission

LIMITS = Limits(retries=2, retry_after=10.0, seconds=60.0, why="time limit of 60s")
TWO: Submission = submission("pass", "pass", limits=LIMITS)


def job(*, stage: int = 0, is_cancelled: bool = False) -> Job:
    return Job(1, "fake-1", TWO, "running", stage, 1, is_cancelled, None, "", "", None)


def earlier(*states: str, stage: int = 0, round_: int = 1) -> list[Attempt]:
    return [Attempt(1, stage, number, round_, state, 1, "", 1.0, "", "") for number, state in enumerate(states, 1)]


@pytest.mark.parametrize(
    ("stage", "before", "ending", "expected"),
    [
        (0, (), Ending("ended", 0, 1.0), Decision("succeeded", is_next_stage=True)),
        (1, (), Ending("ended", 0, 1.0), Decision("succeeded", end_of_job="succeeded")),
        (
            0, (), Ending("ended", 1, 1.0, "boom"),
            Decision("failed", "prepare: exit status 1, a fault: boom", wait_seconds=10.0),
        ),
        (0, ("failed",), Ending("ended", 137, 1.0), Decision("failed", "prepare: ended by signal 9", wait_seconds=20.0)),
        (
            0, ("failed", "failed"), Ending("ended", 1, 1.0),
            Decision("failed", "prepare: exit status 1, a fault", "failed", 1),
        ),
        (
            0, (), Ending("ended", 2, 1.0, "prepare: name: missing"),
            Decision("failed", "prepare: exit status 2, to be corrected: prepare: name: missing", "failed", 2),
        ),
        (1, (), Ending("ended", 3, 1.0), Decision("failed", "train: exit status 3, an alarm", "failed", 3)),
        (0, (), Ending("over", 130, 60.0), Decision("failed", "prepare: time limit of 60s is over", "failed", 124)),
        (
            0, ("failed", "failed"), Ending("interrupted", 130, 1.0),
            Decision("interrupted", "prepare: interrupted; it runs again"),
        ),
        (
            0, ("lost",) * 9, Ending("lost", 1, 0.0),
            Decision("lost", "prepare: lost: the machine or its processes went down; it runs again"),
        ),
        (
            0, ("lost",) * 10, Ending("lost", 1, 0.0),
            Decision("lost", "prepare: lost: the machine or its processes went down, 11 times", "failed", 1),
        ),
        (0, (), Ending("not started", 127, 0.0, "spark-submit: No such file"),
         Decision("failed", "prepare: exit status 127, no such program: spark-submit: No such file", "failed", 127)),
    ],
)  # fmt: skip
def test_what_follows(stage: int, before: tuple[str, ...], ending: Ending, expected: Decision) -> None:
    assert ends.decide(job(stage=stage), earlier(*before, stage=stage), ending) == expected


@pytest.mark.parametrize(
    ("stage", "ending", "expected"),
    [
        (0, Ending("stopped", 130, 1.0), Decision("cancelled", "prepare: cancelled", "cancelled", 130)),
        (0, Ending("lost", 1, 1.0), Decision("cancelled", "prepare: cancelled", "cancelled", 130)),
        (0, Ending("ended", 0, 1.0), Decision("succeeded", "cancelled after prepare", "cancelled", 130)),
        # It was done before anybody could stop it.
        (1, Ending("stopped", 0, 1.0), Decision("succeeded", end_of_job="succeeded")),
    ],
)
def test_a_cancelled_job_ends_with_its_stage(stage: int, ending: Ending, expected: Decision) -> None:
    assert ends.decide(job(stage=stage, is_cancelled=True), [], ending) == expected


def test_other_stages_and_rounds_count_for_nothing() -> None:
    before = earlier("failed", "failed", stage=0) + earlier("failed", "failed", stage=1, round_=2)
    assert ends.decide(job(stage=1), before, Ending("ended", 1, 1.0)).wait_seconds == 10.0
