"""The queue of jobs while its worker is killed and the clock is set: every job has one end, and none is lost.

    python benchmarks/queue_kills.py [--quick] [--json FILE] [--jobs N] [--kills N] [--crashes N] [--seed S]

Jobs of two stages are submitted while a worker runs them: small programs that note when they begin and end, some of which
fail the first time, and some of which are cancelled while they wait for ever with a child in a session of its own. Every
fifth submission is made twice.

At moments drawn at random the worker gets SIGKILL and another one is started, as any `mlspark` command does; some more times
worker, supervisors and stages are all killed, as when the machine goes down. Each time the clock of all of them is set anew,
by up to a year forwards or backwards, by a library that is loaded before libc (`_moved_clock.c`; needs a C compiler, without
which the clock stays). Then the queue's records are held against what the programs noted.

Exits with 1 when a job is lost, has several ends, or another than it must have; when a stage ran to its end twice or never,
twice at the same time, or was begun more often than its failures and crashes explain; or when a process is left. 100 jobs
take a minute or two.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parent))
from _figures import tell

from mlspark.queue.job import Job, Limits, Stage, Submission
from mlspark.queue.places import Places
from mlspark.queue.store import Store

HERE = Path(__file__).parent
PROGRAM = """
import fcntl, os, subprocess, sys, time
notes, job, stage, kind, seconds = sys.argv[1:6]
def note(what):
    with open(notes, "a") as file:
        file.write(f"{what} {job} {stage} {os.getpid()}\\n")
lock = open(f"{notes}-{job}", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("together")
tries = open(notes).read().count(f"began {job} {stage} ") if os.path.exists(notes) else 0
note("began")
if kind == "stuck":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    time.sleep(1000)
time.sleep(float(seconds))
if kind == "fails once" and tries == 0 and stage == "train":
    note("failed")
    sys.exit(1)
note("ended")
"""
MOST_SECONDS = 900.0
KINDS = ("plain", "plain", "plain", "fails once")
LIMITS = Limits(retries=30, retry_after=0.0)


@dataclass
class Queue:
    """A queue of this benchmark, and what was done to it."""

    folder: Path
    draw: random.Random
    kinds: dict[str, str] = field(default_factory=dict)
    """Job -> what its stages do."""
    clock_moves: int = 0
    resubmitted: int = 0
    killed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.places = Places(self.folder / "queue")
        self.store = Store(self.places.database)
        self.notes = self.folder / "notes"

    def submit(self, kind: str) -> Job:
        name = f"job-{len(self.kinds):03}"
        command = [sys.executable, "-c", PROGRAM, str(self.notes), name]
        seconds = f"{self.draw.uniform(0.05, 0.4):.2f}"
        stages = tuple(Stage(stage, (*command, stage, kind, seconds)) for stage in ("prepare", "train"))
        asked = Submission("bench", stages, "local", str(self.folder), {}, "name: bench\n", name, True, LIMITS)
        job, is_new = self.store.submit(asked)
        assert is_new
        self.kinds[job.id] = kind
        if len(self.kinds) % 5 == 0:
            again, is_new = self.store.submit(asked)
            assert (again.id, is_new) == (job.id, False), f"{job.id}: queued twice"
            self.resubmitted += 1
        return job

    def processes(self, *marks: str) -> list[int]:
        """Return the processes whose command line or environment has one of `marks`, and that are no zombies."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                text = (each / "cmdline").read_bytes() + b"\0" + (each / "environ").read_bytes()
                if int(each.name) != os.getpid() and any(mark.encode() in text for mark in marks):
                    found.append(int(each.name))
        return found

    @property
    def worker_mark(self) -> str:
        return f"mlspark.queue.worker\0{self.places.folder}\0"

    @property
    def _marks_of_stages(self) -> list[str]:
        return [f"mlspark.queue.supervisor\0{self.places.folder}", f"MLSPARK_ATTEMPT={self.places.folder}"]

    def kill(self, *, everything: bool) -> None:
        """Kill the worker, and with `everything` supervisors and stages; set the clock; start another worker."""
        marks = [self.worker_mark]
        if everything:
            marks += self._marks_of_stages
        running = self.processes(self.worker_mark)
        self._end(*marks)
        self.killed["everything" if everything else "worker"] += bool(running)
        if "MOVED_CLOCK" in os.environ:
            seconds = self.draw.choice((60, 3600, 86_400, 365 * 86_400)) * self.draw.choice((-1, 1))
            Path(os.environ["MOVED_CLOCK"]).write_text(f"{seconds}")
            self.clock_moves += 1
        Places(self.places.folder).start_worker()

    def close(self) -> None:
        """Leave nothing behind, whatever has happened."""
        self._end(self.worker_mark, *self._marks_of_stages)

    def _end(self, *marks: str) -> None:
        while pids := self.processes(*marks):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def moved_clock(folder: Path) -> None:
    """Have all processes from now on see the clock that $MOVED_CLOCK sets, where there is a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return
    library = folder / "moved_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "_moved_clock.c", "-ldl"], check=True)
    (folder / "clock").write_text("0")
    os.environ |= {"MOVED_CLOCK": str(folder / "clock"), "LD_PRELOAD": str(library)}


def run(queue: Queue, num_jobs: int, kills: int, crashes: int, stuck: int) -> list[float]:
    """Submit, kill and cancel; return how long each cancelling took, in seconds."""
    events = ["kill"] * kills + ["crash"] * crashes + ["cancel"] * stuck
    queue.draw.shuffle(events)
    kinds = [queue.draw.choice(KINDS) for _ in range(num_jobs - stuck)]
    each = max(1, len(kinds) // len(events))
    queue.places.start_worker()
    seconds = []
    for event in events:
        for kind in kinds[:each]:
            queue.submit(kind)
        kinds = kinds[each:]
        if event == "cancel":
            seconds.append(cancel_when_stuck(queue))
        else:
            time.sleep(queue.draw.uniform(0.3, 2.5))
            queue.kill(everything=event == "crash")
    for kind in kinds:
        queue.submit(kind)
    wait(queue, lambda: not queue.store.has_work())
    return seconds


def cancel_when_stuck(queue: Queue) -> float:
    """Submit a job that never ends, cancel it once it runs, and return how long that took."""
    job = queue.submit("stuck")
    wait(
        queue,
        lambda: f"began job-{len(queue.kinds) - 1:03} " in (queue.notes.read_text() if queue.notes.exists() else ""),
    )
    started = time.monotonic()
    queue.store.cancel(job.id)
    wait(queue, lambda: not queue.store.job(job.id).is_open)
    seconds = time.monotonic() - started
    left = queue.processes(f"MLSPARK_ATTEMPT={queue.places.job(job)}/")
    assert not left, f"{job.id}: cancelled, and {left} are left"
    return seconds


def wait(queue: Queue, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing for {MOST_SECONDS:.0f} s; {queue.places.folder}/worker.log:\n"
                             + (queue.places.folder / "worker.log").read_text()[-3000:])  # fmt: skip
        queue.places.start_worker()
        time.sleep(0.05)


def judged(queue: Queue) -> dict[str, int]:
    """Return what must be 0: lost jobs, other ends, stages that ran to their end twice or at once, processes left."""
    notes = Counter(tuple(line.split(" ")[:3]) for line in queue.notes.read_text().splitlines())
    wrong: Counter[str] = Counter()
    jobs = queue.store.jobs()
    wrong["lost"] = len(queue.kinds.keys() - {job.id for job in jobs})
    for number, job in enumerate(jobs):
        kind, ends = queue.kinds[job.id], queue.store.ends(job)
        wrong["lost"] += not ends
        wrong["several_ends"] += len(ends) > 1
        wrong["wrong_ends"] += job.state != ("cancelled" if kind == "stuck" else "succeeded")
        attempts = queue.store.attempts(job)
        for position, stage in enumerate(("prepare", "train")):
            key = f"job-{number:03}", stage
            wrong["ran_together"] += notes["together", *key]
            if kind != "stuck":
                here = [each for each in attempts if each.stage == position]
                fails = 1 + (kind == "fails once" and stage == "train")
                lost = sum(each.state == "lost" for each in here)
                # A crash may come between the end of a program and its record; a killed worker changes nothing.
                wrong["done_twice"] += not 1 <= notes["ended", *key] <= 1 + lost
                wrong["begun_twice"] += notes["began", *key] > fails + lost
    wrong["left_processes"] = len(queue.processes(f"MLSPARK_ATTEMPT={queue.places.folder}"))
    names = "lost", "several_ends", "wrong_ends", "done_twice", "begun_twice", "ran_together", "left_processes"
    return {name: wrong[name] for name in names}


def submit_seconds(folder: Path, runs: int) -> list[float]:
    """Return how long `mlspark submit` takes to return, in seconds; a lock keeps any worker from being started."""
    root = HERE.parent
    places = Places(folder / "other-queue")
    seconds = []
    program = "from mlspark.commands.main import main; main()"
    with places.worker():
        for number in range(runs):
            command = [
                sys.executable,
                "-c",
                program,
                "submit",
                "conf/census.yaml",
                "--set",
                f"training.epochs={number + 1}",
            ]
            started = time.monotonic()
            environment = os.environ | {"MLSPARK_QUEUE": str(places.folder), "PYTHONPATH": str(root)}
            subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - started)
    return seconds


def main(
    quick: Annotated[bool, typer.Option("--quick")] = False,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    jobs: int = 100,
    kills: int = 10,
    crashes: int = 3,
    seed: int = 0,
) -> None:
    """Run it and print the figures."""
    if quick:
        jobs, kills, crashes = 12, 2, 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        submitting = submit_seconds(folder, 3 if quick else 10)
        moved_clock(folder)
        queue = Queue(folder, random.Random(seed))
        with closing(queue.store):
            try:
                cancelling = run(queue, jobs, kills, crashes, 1 if quick else 5)
                wrong = judged(queue)
            finally:
                queue.close()
            states = Counter(each.state for job in queue.store.jobs() for each in queue.store.attempts(job))
    figures = {
        "jobs": len(queue.kinds),
        "worker_kills": queue.killed["worker"],
        "crashes": queue.killed["everything"],
        "clock_moves": queue.clock_moves,
        "resubmitted": queue.resubmitted,
        **wrong,
        "lost_attempts": states["lost"],
        "failed_attempts": states["failed"],
        "cancel_max_s": max(cancelling),
        "submit_median_s": statistics.median(submitting),
        "submit_max_s": max(submitting),
        "seconds": time.monotonic() - started,
    }
    tell(figures, json_file, {"seed": seed})
    raise typer.Exit(int(any(wrong.values())))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
