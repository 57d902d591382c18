"""Jobs that are submitted when it is time: what is asked for, when, and what came of it.

Each due minute has one job at most. A clock that is set changes nothing of that: whether there was a job for a minute is
known by its record, and by nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from mlspark.errors import ConfigError
from mlspark.queue import cron, submission
from mlspark.queue.database import now
from mlspark.queue.job import OPEN, Job, Limits, Submission
from mlspark.queue.store import Store
from mlspark.queue.targets import Place

_BEFORE = "before it was added"
"""Record of the latest due minute when a schedule is added, for which there is no job."""


@dataclass(frozen=True)
class Asked:
    """What `submission.make` is called with each time, and where."""

    pipeline: str
    target: str
    place: Place
    limits: Limits
    budget: float | None
    overlays: tuple[str, ...]
    overrides: tuple[str, ...]
    folder: str
    environment: Mapping[str, str | None]

    def submission(self) -> Submission:
        """Return the job as it would be submitted now; called in `folder`, with `environment`. Raises ConfigError."""
        return submission.make(
            self.pipeline,
            self.target,
            self.place,
            limits=self.limits,
            budget=self.budget,
            overlays=self.overlays,
            overrides=self.overrides,
        )


@dataclass(frozen=True)
class Schedule:
    """Times, and what is submitted then."""

    name: str
    times: str
    asked: Asked


@dataclass(frozen=True)
class Firing:
    """What came of one due minute."""

    minute: str
    job_id: str | None
    """None where none was submitted."""
    problem: str
    """Why none was."""


class Schedules:
    """The schedules in a queue's file."""

    def __init__(self, store: Store) -> None:
        self._store, self._database = store, store.database

    def add(self, schedule: Schedule, moment: datetime) -> None:
        """Keep a schedule, from the next due minute after `moment` (UTC) on; the same one again changes nothing.

        Raises:
            ConfigError: there is another one of this name.
        """
        with self._database.transaction():
            known = next((each for each in self._all() if each.name == schedule.name), None)
            if known is not None and known != schedule:
                raise ConfigError(
                    f"schedule {schedule.name}: there is one already, {known.times}, {known.asked.pipeline}; remove it "
                    f"first (mlspark schedule remove {schedule.name}), or give this one another name"
                )
            if known is None:
                content = json.dumps(asdict(schedule.asked))
                self._database.execute(
                    "INSERT INTO schedules (name, times, asked, added) VALUES (?, ?, ?, ?)",
                    (schedule.name, schedule.times, content, now()),
                )
                last = cron.parse(schedule.times).last(moment)
                if last is not None:
                    self._record(schedule.name, _minute(last), None, _BEFORE)

    def remove(self, name: str) -> None:
        """Forget a schedule; jobs that it has submitted stay. Raises ConfigError where there is none of this name."""
        with self._database.transaction():
            if not self._database.execute("DELETE FROM schedules WHERE name = ?", (name,)).rowcount:
                names = ", ".join(each.name for each in self._all()) or "none"
                raise ConfigError(f"schedule {name}: there is no such schedule; there are: {names}")

    def all(self) -> list[Schedule]:
        """Return the schedules by name."""
        with self._database.problems():
            return self._all()

    def last_firing(self, name: str) -> Firing | None:
        """Return what came of the latest due minute; None before the first."""
        with self._database.problems():
            row = self._database.execute(
                "SELECT minute, id, problem FROM firings LEFT JOIN jobs ON job = number WHERE schedule = ? "
                "AND problem != ? ORDER BY firings.rowid DESC LIMIT 1",
                (name, _BEFORE),
            ).fetchone()
        return Firing(*row) if row else None

    def due(self, moment: datetime) -> list[tuple[Schedule, str]]:
        """Return the schedules whose latest due minute, up to `moment`, has no record yet, each with that minute.

        Of several minutes that passed while there was no worker it is the latest alone.
        """
        found = []
        for schedule in self.all():
            last = cron.parse(schedule.times).last(moment)
            if last is not None and not self._is_recorded(schedule.name, _minute(last)):
                found.append((schedule, _minute(last)))
        return found

    def fire(self, name: str, minute: str, asked: Submission) -> Job | None:
        """Submit the job of a due minute and return it; None where it has been, or the one before has not ended."""
        identity = hashlib.sha256(f"{asked.identity} {name} {minute}".encode()).hexdigest()
        with self._database.transaction():
            if self._is_recorded(name, minute):
                return None
            before = self._database.execute(
                "SELECT id FROM firings JOIN jobs ON job = number WHERE schedule = ? AND state IN (?, ?)", (name, *OPEN)
            ).fetchone()
            if before is not None:
                self._record(name, minute, None, f"{before['id']} had not ended")
                return None
            job = self._store.add(replace(asked, identity=identity))
            self._record(name, minute, job.number, "")
            return job

    def fail(self, name: str, minute: str, problem: str) -> None:
        """Record that no job could be submitted for a due minute, and why."""
        with self._database.transaction():
            if not self._is_recorded(name, minute):
                self._record(name, minute, None, problem)

    def _all(self) -> list[Schedule]:
        rows = self._database.execute("SELECT name, times, asked FROM schedules ORDER BY name").fetchall()
        return [Schedule(row["name"], row["times"], _asked(json.loads(row["asked"]))) for row in rows]

    def _is_recorded(self, name: str, minute: str) -> bool:
        query = "SELECT 1 FROM firings WHERE schedule = ? AND minute = ?"
        return self._database.execute(query, (name, minute)).fetchone() is not None

    def _record(self, name: str, minute: str, job: int | None, problem: str) -> None:
        self._database.execute(
            "INSERT INTO firings (schedule, minute, job, problem) VALUES (?, ?, ?, ?)", (name, minute, job, problem)
        )


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")


def _asked(content: dict[str, Any]) -> Asked:
    place, limits = content.pop("place"), content.pop("limits")
    overlays, overrides = (tuple(content.pop(name)) for name in ("overlays", "overrides"))
    return Asked(
        place=Place(**{**place, "confs": tuple(place["confs"])}),
        limits=Limits(**limits),
        overlays=overlays,
        overrides=overrides,
        **content,
    )
