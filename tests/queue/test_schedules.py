"""Schedules: one job for each due minute, none while the one before has not ended, whatever the clock does."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from mlspark.errors import ConfigError
from mlspark.queue.job import Limits
from mlspark.queue.schedules import Asked, Firing, Schedule, Schedules
from mlspark.queue.targets import Place

from ..conftest import wait_until
from .conftest import Queue, submission

PLACE = Place(confs=("spark.ui.enabled=false",))
ASKED = Asked("p.yaml:prepare", "local", PLACE, Limits(), None, (), ("training.epochs=2",),
              "/no/such/folder", {"MLSPARK_HOME": "home", "MLSPARK_DATA": None})  # fmt: skip
NIGHTLY = Schedule("nightly", "0 3 * * *", ASKED)
ADDED = datetime(2026, 11, 28, 12, 0)


def at(day: int, hour: int) -> datetime:
    return datetime(2026, 11, day, hour, 0)


@pytest.fixture
def schedules(queue: Queue) -> Schedules:
    made = Schedules(queue.store)
    made.add(NIGHTLY, ADDED)
    return made


def minutes(schedules: Schedules, moment: datetime) -> list[str]:
    return [minute for _, minute in schedules.due(moment)]


def test_each_due_minute_has_one_job(queue: Queue, schedules: Schedules) -> None:
    assert schedules.all() == [NIGHTLY]
    assert minutes(schedules, ADDED) == minutes(schedules, at(29, 2)) == []
    assert schedules.last_firing("nightly") is None
    assert minutes(schedules, at(29, 3)) == ["2026-11-29 03:00"]
    job = schedules.fire("nightly", "2026-11-29 03:00", submission("pass"))
    assert job is not None
    assert schedules.last_firing("nightly") == Firing("2026-11-29 03:00", job.id, "")
    assert minutes(schedules, at(29, 4)) == []
    assert schedules.fire("nightly", "2026-11-29 03:00", submission("pass")) is None
    queue.store.end(job, "succeeded", 0, "")
    # The clock goes forwards by a year, and back again: what was due in between is due then.
    assert minutes(schedules, datetime(2027, 11, 29, 5, 0)) == ["2027-11-29 03:00"]
    in_a_year = schedules.fire("nightly", "2027-11-29 03:00", submission("pass"))
    assert in_a_year is not None
    assert in_a_year.id != job.id  # the same inputs, and another occasion
    queue.store.end(in_a_year, "succeeded", 0, "")
    assert minutes(schedules, at(29, 5)) == []
    assert minutes(schedules, at(30, 5)) == ["2026-11-30 03:00"]


def test_the_latest_of_missed_minutes_is_made_up_for(schedules: Schedules) -> None:
    assert minutes(schedules, datetime(2026, 12, 5, 8, 0)) == ["2026-12-05 03:00"]


def test_no_job_begins_while_the_one_before_has_not_ended(queue: Queue, schedules: Schedules) -> None:
    first = schedules.fire("nightly", "2026-11-29 03:00", submission("pass"))
    assert first is not None
    assert schedules.fire("nightly", "2026-11-30 03:00", submission("pass")) is None
    assert schedules.last_firing("nightly") == Firing("2026-11-30 03:00", None, f"{first.id} had not ended")
    queue.store.end(first, "failed", 1, "prepare: exit status 1, a fault")
    assert minutes(schedules, at(30, 4)) == []
    assert schedules.fire("nightly", "2026-12-01 03:00", submission("pass")) is not None


def test_names_of_schedules_are_theirs_alone(schedules: Schedules) -> None:
    schedules.add(NIGHTLY, ADDED)  # the same
    with pytest.raises(
        ConfigError, match=r"schedule nightly: there is one already, 0 3 \* \* \*, p.yaml:prepare; remove"
    ):
        schedules.add(Schedule("nightly", "@hourly", ASKED), ADDED)
    with pytest.raises(ConfigError, match=r"schedule weekly: there is no such schedule; there are: nightly"):
        schedules.remove("weekly")
    schedules.remove("nightly")
    assert schedules.all() == []
    assert schedules.last_firing("nightly") is None


def test_worker_fires_and_says_why_it_cannot(queue: Queue, schedules: Schedules) -> None:
    schedules.add(Schedule("often", "* * * * *", ASKED), ADDED)  # long ago, so it is due
    queue.start_worker()
    wait_until(lambda: schedules.last_firing("often"))
    last = schedules.last_firing("often")
    assert last is not None
    assert (last.job_id, last.problem) == (None, "[Errno 2] No such file or directory: '/no/such/folder'")


def test_settings_are_read_where_and_how_the_schedule_was_added(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "prepare.py").touch()
    (tmp_path / "p.yaml").write_text("name: fake\n")
    content = {**vars(ASKED), "folder": str(tmp_path)}
    schedules = Schedules(queue.store)
    schedules.add(Schedule("here", "0 3 * * *", Asked(**content)), ADDED)
    command = [sys.executable, "-m", "mlspark.queue.firing", str(queue.places.folder), "here", "2026-11-29 03:00"]
    for _ in range(2):  # a worker that was killed in between, and the next one
        subprocess.run(command, check=True, timeout=60)
    [job] = queue.store.jobs()
    assert job.submission.environment["MLSPARK_HOME"] == "home"
    assert job.submission.settings == "name: fake\ntraining:\n  epochs: 2\n"
    assert job.submission.folder == str(tmp_path)
    assert job.submission.stages[0].command[1:] == ("--conf", "spark.ui.enabled=false", "jobs/prepare.py")
