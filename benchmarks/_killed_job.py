"""A job of jobs/ as a process that can be killed, and how far it has come by the files it has written."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UP, END = "spark up", "end"
CLOCK = "any moment"
"""An aim: a moment drawn evenly from the time between Spark being up and the end."""
_JOB_SECONDS = 600.0


@dataclass(frozen=True)
class Kind:
    """A job, and what it writes."""

    script: str
    row: str
    """What a row of its table is called: "feature", "score"."""
    part: str
    """What the folders of its table's partitions begin with."""

    @property
    def moments(self) -> tuple[str, ...]:
        """What the appearance of files tells, in the order in which an undisturbed run comes to it."""
        quarantine, row = ("quarantine files", "quarantine committed"), self.row
        table = (f"{row} files", f"{row}s commit begun", f"{row}s committed")
        return (UP, "sidecars", *quarantine, *table, END)

    def moment(self, path: str) -> str | None:
        """Return the moment that the appearance of a file or folder marks."""
        folder, name = path.rsplit("/", 1)
        is_commit = folder.endswith("/_delta_log") and name.endswith(".json") and not name.startswith(".")
        if "_quarantine/" in path:
            if is_commit:
                return "quarantine committed"
            return "quarantine files" if "/job_id=" in path else None
        if "/_mlspark/" in path:
            return "sidecars"
        if "/_delta_log" in path:
            # Delta writes .VERSION.json.ID.tmp and renames it.
            is_begun = ".json." in name and name.endswith(".tmp")
            return f"{self.row}s committed" if is_commit else f"{self.row}s commit begun" if is_begun else None
        return f"{self.row} files" if f"/{self.part}=" in path else None


PREPARE = Kind("prepare.py", "feature", "split")
SCORE = Kind("score.py", "score", "score_id")


def overrides(home: Path, data: Path) -> list[str]:
    """Return what differs from conf/census.yaml: daily files to learn from, one file to test with."""
    places = [f"storage.root={home}", f"sources.root={data}", f"contract={ROOT / 'schemas' / 'census.json'}"]
    return [*places, "sources.learn.path=learn", "sources.test.path=test.csv"]


class Job:
    """A job in a session of its own, and when it came to which moment."""

    def __init__(
        self,
        kind: Kind,
        home: Path,
        overrides: Sequence[str],
        *options: str,
        config: str = "conf/census.yaml",
        conf: Path | None = None,
    ) -> None:
        """Start it for the pipeline `config`. With `conf` as SPARK_CONF_DIR, else on local[2]."""
        self.kind = kind
        self.scratch = home.with_name(home.name + "-scratch")
        self.scratch.mkdir()
        self.times: dict[str, float] = {}
        self._tables = home / "tables"
        self._known = set(_paths(self._tables))
        environment = {name: value for name, value in os.environ.items() if name != "SPARK_CONF_DIR"}
        # What a killed JVM leaves is then removed with the folder.
        environment |= {"SPARK_LOCAL_DIRS": str(self.scratch), "TMPDIR": str(self.scratch)}
        environment |= {"SPARK_CONF_DIR": str(conf)} if conf else {}
        settings = [f"--set={override}" for override in overrides]
        command = [sys.executable, f"jobs/{kind.script}", f"--config={config}", *settings, *options]
        self._started = time.monotonic()
        with open(self.scratch / "log", "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, moment: str) -> bool:
        """Return True as soon as the job has come to `moment`, False when it ends before."""
        moments = self.kind.moments
        from_then_on = moments[moments.index(moment) :]
        while not any(each in self.times for each in from_then_on):
            has_ended = self.process.poll() is not None
            self._look()
            if has_ended:
                self.times[END] = self._seconds()
            if self._seconds() > _JOB_SECONDS:
                self.kill()
                raise SystemExit(f"{self.kind.script} did not end in {_JOB_SECONDS:.0f} s; its log:\n{self.log()}")
            # The commit takes milliseconds; before, a finer look would only slow the job down.
            time.sleep(0.001 if f"{self.kind.row} files" in self.times else 0.01)
        return moment == END or END not in self.times

    def wait_for(self, aim: str, times: Mapping[str, float], draw: random.Random) -> str:
        """Wait for a moment drawn at `aim`, one of the moments or CLOCK; return it in words.

        Args:
            aim: the moment from which, to the next, it is drawn evenly; CLOCK: from the whole run.
            times: moment -> seconds after the start of an undisturbed job.
            draw: what draws.
        """
        moments = self.kind.moments
        if aim == CLOCK:
            drawn = draw.uniform(times[UP], times[END])
            moment = max((each for each in moments if times[each] <= drawn), key=lambda each: times[each])
            delay = drawn - times[moment]
        else:
            moment = aim
            delay = draw.uniform(0.0, times[dict(pairwise(moments))[moment]] - times[moment])
        if self.wait(moment):
            time.sleep(delay * self.times.get(moment, times[moment]) / times[moment])
        return f"{moment} + {delay:.2f} s"

    def run(self) -> Mapping[str, float]:
        """Let it run undisturbed and return moment -> seconds after its start."""
        self.wait(END)
        if self.process.returncode:
            raise SystemExit(f"the undisturbed run failed; its log:\n{self.log()}")
        # What is there for milliseconds only may be missed.
        begun, committed = self.kind.moments[-3:-1]
        self.times.setdefault(begun, self.times.get(committed, 0.02) - 0.02)
        missing = [moment for moment in self.kind.moments if moment not in self.times]
        assert not missing, f"no file marked {missing}: has {self.kind.script} changed its order of writing?"
        return self.times

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> str:
        """Kill job and JVM, which have not ended; return the last moment that they came to."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while any(group == self.process.pid and not state.startswith("Z") for _, _, group, state, _ in processes()):
            time.sleep(0.01)
        self._look()
        return next(moment for moment in reversed(self.kind.moments) if moment in self.times)

    def log(self) -> str:
        return (self.scratch / "log").read_text(errors="replace")[-6000:]

    def _look(self) -> None:
        if UP not in self.times and any(self.scratch.glob("blockmgr-*")):
            self.times[UP] = self._seconds()
        for path in _paths(self._tables):
            if path not in self._known:
                self._known.add(path)
                moment = self.kind.moment(path)
                if moment is not None:
                    self.times.setdefault(moment, self._seconds())

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def _paths(folder: Path) -> Iterator[str]:
    """Yield files and folders below `folder`; what disappears meanwhile may be among them."""
    for parent, folders, files in os.walk(folder):
        yield from (f"{parent}/{name}" for name in (*folders, *files))


def processes() -> list[tuple[int, int, int, str, str]]:
    """Return (pid, parent, group, state, command line) of all processes."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,pgid=,stat=,args="], check=True, capture_output=True, text=True
    ).stdout
    fields = (line.split(None, 4) for line in listed.splitlines())
    return [(int(pid), int(parent), int(group), state, args) for pid, parent, group, state, args in fields]


def executors_of(workers: Sequence[int]) -> list[int]:
    """Return the pids of Spark's executors among the descendants of `workers`, ascending."""
    listed = processes()
    family = set(workers)
    while more := {pid for pid, parent, *_ in listed if parent in family} - family:
        family |= more
    return sorted(pid for pid, *_, args in listed if pid in family and "CoarseGrainedExecutorBackend" in args)
