"""A training run hurt in every way we know: what is noticed when, what it costs, and whether the result is the same.

    python benchmarks/training_faults.py [--quick] [--json FILE] [--seed S] [--only KINDS] [--pictures]

A run of 2 ranks and 160 steps (dropout, AdamW, one-cycle schedule, a checkpoint every 10 steps) is trained undisturbed.
Then the same run is trained again and again, hurt once each time, at a step drawn by the seed. With --pictures it learns
from 1,511 JPEGs, changed at random and mixed by MixUp and CutMix, in 144 steps, and a rank gets SIGKILL ten times.

    raise      a rank's loss function raises, once
    kill       a rank gets SIGKILL
    stop       a rank gets SIGSTOP: alive, but silent
    executor   an executor of a standalone cluster (2 workers) gets SIGKILL
    driver     the driver's process group gets SIGKILL; the job is run again
    truncated  a rank is killed, and the newest checkpoint's state cut in half
    storage    the checkpoints' folder cannot be written for 20 s
    disk full  nor because there is no space, for 5 s (a small tmpfs; needs root, else left out)
    slots      a rank is killed while another Spark job takes its slot for 5 s

`noticed` are the seconds until the driver tells of it (of a killed driver: none, whoever started it knows), `redone` the
steps that rank 0 took twice, `seconds` those of the whole run. Equal means: the best weights, the last weights and the
optimizer's state have the bits of the undisturbed run. Rows are exact when each epoch of each run saw each row once.

Exits with 1 unless all is equal, exact, and no process is left. 20 faults take about 6 minutes on two idle cores.
"""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import _checkout  # noqa: F401
import torch
import typer
from _killed_job import executors_of
from _training_run import COLUMNS, PICTURES, RANKS, Work, calls, new_spec, train, write_table
from pyspark.sql import SparkSession

from mlspark import session
from mlspark.training import checkpoint
from mlspark.training.events import AttemptFailed, Event
from tools.cluster import settings as cluster_settings
from tools.cluster import standalone

ROOT = Path(__file__).resolve().parents[1]
FAULTS = {
    "raise": 3, "kill": 4, "stop": 2, "truncated": 3, "storage": 2, "disk full": 1, "slots": 1, "driver": 2, "executor": 2,
}  # fmt: skip
QUICK = ("raise", "kill", "stop", "truncated", "driver")
KILLS_WITH_PICTURES, QUICK_KILLS_WITH_PICTURES = 10, 2
_STORAGE_SECONDS, _DISK_SECONDS, _SLOT_SECONDS = 20.0, 5.0, 5.0
_LIMIT_SECONDS = 180.0


@dataclass
class Course:
    """What happened in one run."""

    kind: str
    step: int
    """Step after which it was hurt."""
    hurt_at: float = 0.0
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    noticed: float = 0.0
    message: str = ""
    redone: int = 0
    seconds: float = 0.0
    is_equal: bool = False
    is_exact: bool = False
    left: int = 0


def living_ranks() -> dict[int, int]:
    """Return rank -> process; one run trains at a time."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, _, rank = (entry / "comm").read_text().strip().rpartition(" ")
            if name == "mlspark rank":
                found[int(rank)] = int(entry.name)
    return found


def processes_of(run: Path) -> list[str]:
    """Return the command lines of all processes that have to do with a run."""
    found, ranks = [], living_ranks().values()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if (str(run).encode() + b"/" in line or int(entry.name) in ranks) and int(entry.name) != os.getpid():
                found.append(line.replace(b"\0", b" ").decode())
    return found


def result(run: Path) -> tuple[Any, ...]:
    """Return what must be equal bit for bit: best weights, last weights, optimizer state."""
    last = checkpoint.load(str(max((run / "checkpoints").glob("step-*"))))
    best = checkpoint.load(str(run / "best"))
    return best.weights, last.weights, last.state["optimizer"]["state"]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def cut_newest(run: Path) -> None:
    """Cut the newest checkpoint's state in half."""
    newest = max(path.parent for path in (run / "checkpoints").glob("step-*/manifest.json"))
    [state] = newest.glob("state-*")
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Make `folder` a disk of 4 MB."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Bench:
    """The table, the undisturbed result, and a session that is started when it is needed."""

    def __init__(self, folder: Path, work: Work) -> None:
        self.folder, self.table, self.work = folder, folder / "table", work
        self.id_sum = write_table(self.table, work)
        self.spark: SparkSession | None = None
        self.workers: Sequence[int] = ()
        """Processes of the cluster's workers, where `spark` is on one."""
        self.expected: tuple[Any, ...] = ()

    def local(self) -> SparkSession:
        if self.spark is None:
            self.spark = session.start("training-faults", {"spark.master": f"local[{RANKS}]"})
            self.spark.sparkContext.setLogLevel("OFF")
        return self.spark

    def stop(self) -> None:
        if self.spark is not None:
            self.spark.stop()
            self.spark = None

    def undisturbed(self) -> float:
        run, started = self.folder / "undisturbed", time.monotonic()
        train(self.local(), new_spec(run, self.table, self.work), lambda event: None)
        self.expected = result(run)
        return time.monotonic() - started

    def hurt(self, kind: str, number: int, step: int, spark: SparkSession | None) -> Course:
        """Return the course of a run that is hurt at `step`."""
        course, run = Course(kind, step), self.folder / f"run{number}"
        began, victim = time.monotonic(), step % RANKS
        if kind == "driver":
            id_sums = self._killed_driver(course, run)
        else:
            assert spark is not None
            disk = small_disk(run / "checkpoints") if kind == "disk full" else None
            if disk is not None:
                disk.__enter__()
            try:
                id_sums = self._killed_rank(course, run, spark, victim)
                course.is_equal = equal(result(run), self.expected)
            finally:
                if disk is not None:
                    disk.__exit__(None, None, None)
        course.seconds = time.monotonic() - began
        if kind == "driver":
            course.is_equal = equal(result(run), self.expected)
        course.is_exact = set(id_sums) == {self.id_sum}
        course.redone = self._steps(run) - self.work.steps
        deadline = time.monotonic() + 10.0
        while (left := processes_of(run)) and time.monotonic() < deadline:
            time.sleep(0.2)
        course.left = len(left)
        told = [(at, event) for at, event in course.events if event["event"] in ("failed", "silent", "storage")]
        if kind != "driver" and told:
            at, event = told[0]
            course.noticed, course.message = at - course.hurt_at, event["message"].splitlines()[0]
        elif kind == "driver":
            resumed = [event for _, event in course.events if event["event"] == "resumed"]
            course.message = f"run again: went on after step {resumed[0]['step']}" if resumed else "began anew"
        return course

    def _steps(self, run: Path) -> int:
        """Return how many steps rank 0 has begun, over all starts."""
        return calls(run, 0) // self.work.calls

    def _killed_rank(self, course: Course, run: Path, spark: SparkSession, victim: int) -> list[int]:
        is_over = threading.Event()

        def on_event(event: Event) -> None:
            course.events.append((time.time(), event.to_json()))
            if course.kind == "truncated" and isinstance(event, AttemptFailed):
                cut_newest(run)

        def injure() -> None:
            while self._steps(run) < course.step and not is_over.is_set():
                time.sleep(0.005)
            course.hurt_at = time.time()
            self._injuries(course.kind, run, spark, victim)()

        raises_at = (victim, course.step * self.work.calls) if course.kind == "raise" else None
        thread = threading.Thread(target=injure, daemon=True)
        if raises_at is None:
            thread.start()
        try:
            outcome = train(spark, new_spec(run, self.table, self.work), on_event, raises_at)
        finally:
            is_over.set()
        if raises_at is not None:
            course.hurt_at = float((run / "raised").read_text())
        return [epoch.row_id_sum for epoch in outcome.epochs]

    def _injuries(self, kind: str, run: Path, spark: SparkSession, victim: int) -> Callable[[], None]:
        def signal_rank(number: signal.Signals) -> None:
            os.kill(living_ranks()[victim], number)

        def block_storage() -> None:
            place, aside = run / "checkpoints", run / "aside"
            place.rename(aside)
            place.write_text("in the way")
            time.sleep(_STORAGE_SECONDS)
            place.unlink()
            aside.rename(place)

        def fill_disk() -> None:
            filler = run / "checkpoints" / "filler"
            with open(filler, "wb", buffering=0) as file:
                while True:
                    try:
                        file.write(bytes(4096))
                    except OSError:
                        break
            time.sleep(_DISK_SECONDS)
            filler.unlink()

        def take_slot() -> None:
            def wait(_: int) -> None:
                time.sleep(_SLOT_SECONDS)

            signal_rank(signal.SIGKILL)
            spark.sparkContext.parallelize([0], 1).foreach(wait)

        def kill_executor() -> None:
            executors = executors_of(self.workers)
            os.kill(executors[victim % len(executors)], signal.SIGKILL)

        return {
            "kill": lambda: signal_rank(signal.SIGKILL),
            "truncated": lambda: signal_rank(signal.SIGKILL),
            "stop": lambda: signal_rank(signal.SIGSTOP),
            "storage": block_storage,
            "disk full": fill_disk,
            "slots": take_slot,
            "executor": kill_executor,
        }[kind]

    def _killed_driver(self, course: Course, run: Path) -> list[int]:
        run.mkdir()
        script = ROOT / "benchmarks" / "_training_run.py"
        command = [sys.executable, str(script), str(run), str(self.table), self.work.name]
        for attempt in range(2):
            with open(run / f"log{attempt}", "wb") as log:
                driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            deadline = time.monotonic() + _LIMIT_SECONDS
            while driver.poll() is None and (attempt or self._steps(run) < course.step):
                if time.monotonic() > deadline:
                    os.killpg(driver.pid, signal.SIGKILL)
                    raise SystemExit(
                        f"the driver does not end; its log:\n{(run / f'log{attempt}').read_text()[-4000:]}"
                    )
                time.sleep(0.005)
            if attempt == 0:
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
        if driver.returncode:
            raise SystemExit(f"the driver failed; its log:\n{(run / 'log1').read_text()[-4000:]}")
        for line in (run / "events").read_text().splitlines():
            event = json.loads(line)
            course.events.append((event["at"], event))
        return list(json.loads((run / "outcome").read_text()))


def run_all(bench: Bench, kinds: list[str], seed: int) -> list[Course]:
    draw, courses = random.Random(seed), []

    def hurt(kind: str, spark: SparkSession | None) -> None:
        course = bench.hurt(kind, len(courses), draw.randrange(15, bench.work.steps - 15), spark)
        courses.append(course)
        print(row(course), flush=True)

    for kind in kinds:
        if kind not in ("driver", "executor"):
            hurt(kind, bench.local())
    bench.stop()
    for _ in range(kinds.count("driver")):
        hurt("driver", None)
    if "executor" in kinds:
        with standalone.serve(workers=2, cores=1) as cluster:
            together = cluster_settings.spark_settings(standalone=cluster) | {"spark.executor.cores": "1"}
            bench.spark = session.start("training-faults", together)
            bench.spark.sparkContext.setLogLevel("OFF")
            bench.workers = cluster.worker_pids
            for _ in range(kinds.count("executor")):
                hurt("executor", bench.spark)
            bench.stop()
    return courses


def row(course: Course) -> str:
    noticed = "" if course.kind == "driver" else f"{course.noticed:.1f} s"
    result_of = ("equal" if course.is_equal else "DIFFERENT") + (", exact" if course.is_exact else ", ROWS DIFFER")
    return (
        f"{course.kind:<10} at {course.step:>3}  noticed {noticed:>7}  redone {course.redone:>3}  {course.seconds:>5.1f} s  "
        f"{result_of}, left {course.left}  {course.message[:110]}"
    )


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Five faults.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the steps at which the run is hurt.")] = 0,
    only: Annotated[str, typer.Option(help="Faults to try, with commas between; all unless given.")] = "",
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Pictures in place of columns; a rank is killed.")
    ] = False,
) -> None:
    """Hurt training runs, and see what becomes of them."""
    work, kinds = COLUMNS, list(QUICK) if quick else [kind for kind, times in FAULTS.items() for _ in range(times)]
    if pictures:
        work, kinds = PICTURES, ["kill"] * (QUICK_KILLS_WITH_PICTURES if quick else KILLS_WITH_PICTURES)
    if only:
        kinds = only.split(",")
    if "disk full" in kinds and os.geteuid() != 0:
        print("disk full: left out, mounting a small disk needs root", flush=True)
        kinds = [kind for kind in kinds if kind != "disk full"]
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="mlspark-faults-") as name:
        bench = Bench(Path(name), work)
        try:
            seconds = bench.undisturbed()
            print(
                f"undisturbed: {work.steps} steps of {RANKS} ranks, {work.rows['train']:,} rows, {seconds:.1f} s",
                flush=True,
            )
            courses = run_all(bench, kinds, seed)
        finally:
            bench.stop()
            shutil.rmtree(bench.table, ignore_errors=True)
    noticed = [course.noticed for course in courses if course.kind != "driver"]
    figures = {
        "faults": len(courses),
        "noticed_max_s": round(max(noticed), 2),
        "noticed_median_s": round(statistics.median(noticed), 2),
        "steps_redone_max": max(course.redone for course in courses),
        "equal_parameters": sum(course.is_equal for course in courses),
        "rows_exact": sum(course.is_exact for course in courses),
        "left_processes": sum(course.left for course in courses),
        "undisturbed_s": round(seconds, 1),
    }
    for key, value in figures.items():
        print(f"{key:<20}{value}")
    if json_file:
        each = [{name: value for name, value in vars(course).items() if name != "events"} for course in courses]
        json_file.write_text(json.dumps(figures | {"courses": each}, indent=1) + "\n", encoding="utf-8")
    is_well = figures["equal_parameters"] == figures["rows_exact"] == len(courses) and not figures["left_processes"]
    raise typer.Exit(0 if is_well else 1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
