"""Once and only once: prepare killed at random moments, and what its readers see then and after a re-run.

    python benchmarks/prepare_kills.py [--quick] [--json FILE] [--kills N] [--seed S] [--pictures]

Census-like rows (with --pictures: pictures in zips), broken ones among them, are prepared undisturbed first: that gives
the rows to expect, and when files appear below the tables' folders. Then jobs/prepare.py is started again and again, in a
session of its own with a JVM of its own, and its whole process group gets SIGKILL: two of five times at a moment drawn
evenly from the undisturbed time between Spark being up and the end, else at a moment drawn evenly between the appearance
of one kind of file and the next (MOMENTS), so that the milliseconds of a Delta commit are hit too. Three starting points
take turns: no table yet, new files for a table (--mode append), all files for a table that holds some of them.

After each kill a reader looks: a half is a version whose rows are not as many as its commits say, or whose quarantine is
not, or rows that are neither those from before nor those that the run was to write. Then prepare runs to its end in this
process, and the rows of features (with their split) and quarantine are compared, as multisets, with the undisturbed ones;
so they are after VACUUM with retention 0, which must take away every file that no version needs.

A quarter as many kills again hit the only executor of a standalone cluster: there the job must end well by itself.

20 + 5 kills take 8 minutes on two idle cores. Exits with 1 when a row is lost, duplicated, or half visible.
"""

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import _checkout  # noqa: F401
import typer
from _killed_job import CLOCK, END, PREPARE, ROOT, UP, Job, executors_of
from _killed_job import overrides as of_census
from _table_views import Result, View, counted, files_not_needed, orphans, reader, report, write_rows
from pyspark.sql import SparkSession

from mlspark import quarantine as quarantines
from mlspark import session, tables
from mlspark.datasets import pictures_like
from mlspark.features import prepared
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.prepare import prepare
from tools.cluster import settings as cluster_settings
from tools.cluster import standalone

_AIMS = (
    "quarantine committed",
    CLOCK,
    "features commit begun",
    "feature files",
    CLOCK,
    "quarantine files",
    "features committed",
    CLOCK,
    "sidecars",
    CLOCK,
)
_EXECUTOR_AIMS = ("feature files", UP, "quarantine files", "sidecars", "quarantine committed")


@dataclass
class Start:
    """What a run finds and is to do."""

    name: str
    mode: str
    home: Path | None
    """Storage root to begin with; None: an empty one."""
    before: View = field(default_factory=View)
    after: View = field(default_factory=View)
    times: Mapping[str, float] = field(default_factory=dict)
    """Moment -> seconds after the start of an undisturbed job."""


class Census:
    """Files of lines, one a day."""

    config = "conf/census.yaml"

    def __init__(self, data: Path, seed: int) -> None:
        """Write the first day, and the rows to test with."""
        self._data = data
        self._learn, test = write_rows(data, seed)
        (data / "learn").mkdir()
        self._write("day1.csv", self._learn[: 2 * len(self._learn) // 3])
        (data / "test.csv").write_bytes(b"".join(test))

    def write_second_day(self) -> None:
        self._write("day2.csv", self._learn[2 * len(self._learn) // 3 :])

    def overrides(self, home: Path) -> list[str]:
        return of_census(home, self._data)

    def _write(self, name: str, lines: Sequence[bytes]) -> None:
        (self._data / "new").write_bytes(b"".join(lines))
        (self._data / "new").rename(self._data / "learn" / name)


class Pictures:
    """Zips of pictures, one a day."""

    config = "conf/pictures.yaml"

    def __init__(self, data: Path, seed: int) -> None:
        """Write the first day, and the pictures to test with."""
        self._data, self._seed = data, seed
        (data / "learn").mkdir(parents=True)
        self._write("day1.zip", seed).rename(data / "test")

    def write_second_day(self) -> None:
        self._write("day2.zip", self._seed + 1)

    def overrides(self, home: Path) -> list[str]:
        places = [f"storage.root={home}", f"sources.root={self._data}"]
        contract = f"contract={ROOT / 'schemas' / 'pictures.json'}"
        return [*places, contract, "sources.learn.path=learn", "sources.test.path=test"]

    def _write(self, name: str, seed: int) -> Path:
        """Write a zip to learn from and return the folder of pictures to test with."""
        made = self._data / f"made{seed}"
        pictures_like.write(made, num_train=600, num_test=100, seed=seed, bad_pictures=28)
        (made / "pictures" / "train.zip").rename(self._data / "learn" / name)
        return made / "pictures" / "test"


def look(spark: SparkSession, settings: Settings, *, whole_history: bool = True) -> View:
    """Return what a reader sees; every version counts when it is not whole, or only the newest."""
    features, quarantine = settings.table("features"), settings.table("quarantine")
    history = tables.commits(features)
    if not history:
        return View()
    by_id = {commit.metadata["id"]: commit.metadata for commit in reversed(history)}
    halves = 0
    for commit in history if whole_history else history[:1]:
        in_force = [by_id[commit_id] for commit_id in commit.metadata["ids"]]
        good = tables.read(spark, features, version=commit.version).count()
        bad = quarantines.read(spark, quarantine, commit.metadata["ids"]).select("job_id").collect()
        said = Counter({metadata["id"]: metadata["rows_quarantined"] for metadata in in_force})
        is_whole = good == sum(metadata["rows_good"] for metadata in in_force)
        halves += not (is_whole and said == Counter(row["job_id"] for row in bad))
        prepared.of_commit(features, commit)  # raises when its encoder is not the one of the rows
    bad = prepared.read_quarantine(spark, settings.table("features"), settings.table("quarantine")).collect()
    return View(counted(tables.read(spark, features).collect()), counted(bad), halves)


class Bench:
    """The data, the starting points and the reader's session."""

    def __init__(self, spark: SparkSession, folder: Path, seed: int, kind: type[Census] | type[Pictures]) -> None:
        self.spark, self.folder, self.result = spark, folder, Result()
        self.random = random.Random(seed)
        self.data = kind(folder / "data", seed)
        self._runs = 0
        base = folder / "base"
        prepare(spark, self.settings(base))
        self.data.write_second_day()
        before = look(spark, self.settings(base))
        empty, append = Start("empty", "rebuild", None), Start("append", "append", base, before)
        for start in (empty, append):
            home = self.home(start)
            start.times = self._job(home, start).run()
            start.after = look(spark, self.settings(home))
            assert start.after.quarantine, "no bad rows"
            assert not start.after.num_halves
        rebuild = Start("rebuild", "rebuild", base, before, empty.after, empty.times)
        self.starts = (empty, append, rebuild)

    def settings(self, home: Path) -> Settings:
        return loading.load([str(ROOT / self.data.config)], self.data.overrides(home))

    def home(self, start: Start) -> Path:
        """Return a new storage root as `start` wants it."""
        self._runs += 1
        home = self.folder / f"run{self._runs}"
        if start.home:
            shutil.copytree(start.home, home)
        return home

    def _job(self, home: Path, start: Start, conf: Path | None = None) -> Job:
        overrides, mode = self.data.overrides(home), f"--mode={start.mode}"
        return Job(PREPARE, home, overrides, mode, config=self.data.config, conf=conf)

    def kill_driver(self, start: Start, aim: str) -> bool:
        """Kill a run, look, run to the end, compare, vacuum, compare. False when it ended before it was killed."""
        home = self.home(start)
        settings = self.settings(home)
        job = self._job(home, start)
        drawn = job.wait_for(aim, start.times, self.random)
        if job.has_ended():
            print(f"{start.name:<9}{drawn:<31}had ended", flush=True)
            return False
        moment = job.kill()
        seen = look(self.spark, settings)
        is_old_or_new = any(not seen.minus(whole) and not whole.minus(seen) for whole in (start.before, start.after))
        self.result.visible_halves += seen.num_halves + (not is_old_or_new)
        left = sum(orphans(settings.table(kind)) for kind in ("features", "quarantine"))
        report = prepare(self.spark, settings, mode=start.mode)
        self._settle(settings, report, start)
        self.result.left_files += left
        self.result.by_moment[moment] += 1
        self.result.by_start[start.name] += 1
        state = "new" if seen.rows == start.after.rows else "old"
        print(
            f"{start.name:<9}{drawn:<31}killed after {moment:<23}{state} rows seen, {left} files left",
            flush=True,
        )
        shutil.rmtree(home)
        shutil.rmtree(job.scratch)
        return True

    def kill_executor(self, start: Start, aim: str, conf: Path, find: Callable[[], list[int]]) -> bool:
        """Kill the executor of a run on a cluster and let it end. False when it ended before."""
        home = self.home(start)
        settings = self.settings(home)
        job = self._job(home, start, conf)
        while not find() and not job.has_ended():
            time.sleep(0.1)
        drawn = job.wait_for(aim, start.times, self.random)
        found = [] if job.has_ended() else find()
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        job.wait(END)
        if job.process.returncode:
            raise SystemExit(f"prepare did not survive the loss of its executor; its log:\n{job.log()}")
        if not found:
            return False
        newest = tables.latest(settings.table("features"))
        assert newest is not None
        self._settle(settings, newest.metadata, start)
        self.result.by_moment["executor"] += 1
        print(f"{'executor':<9}{drawn:<31}killed, the job ended well after {job.times[END]:.0f} s", flush=True)
        shutil.rmtree(home)
        shutil.rmtree(job.scratch)
        return True

    def _settle(self, settings: Settings, report: Mapping[str, Any], start: Start) -> None:
        """Compare a finished run with the undisturbed one, before and after VACUUM."""
        self.result.unaccounted += abs(report["rows_read"] - report["rows_good"] - report["rows_quarantined"])
        self.result.compare(look(self.spark, settings), start.after)
        for kind in ("features", "quarantine"):
            self.result.left_after_vacuum += files_not_needed(self.spark, settings.table(kind))
        self.result.compare(look(self.spark, settings, whole_history=False), start.after)


def kill_executors(bench: Bench, num_kills: int) -> int:
    """Start a cluster of one worker and kill its executor in `num_kills` runs; return how many were hit."""
    kills = 0
    with standalone.serve(workers=1, cores=2, memory="2g") as cluster:
        conf = bench.folder / "cluster-conf"
        base = session.defaults()
        ours = cluster_settings.spark_settings(standalone=cluster)
        jars = {name: base[name] for name in ("spark.jars.packages", "spark.jars.excludes")}
        cluster_settings.write_conf(conf, ours | jars | {"spark.sql.shuffle.partitions": "2"})
        for aim in islice(cycle(_EXECUTOR_AIMS), 2 * num_kills):
            if kills == num_kills:
                break
            kills += bench.kill_executor(bench.starts[0], aim, conf, lambda: executors_of(cluster.worker_pids))
    return kills


def main(
    quick: Annotated[bool, typer.Option("--quick", help="3 + 1 kills instead of 20 + 5.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    kills: Annotated[int | None, typer.Option(help="Kills of the driver; a quarter as many of an executor.")] = None,
    seed: Annotated[int, typer.Option(help="Of the rows and of the moments.")] = 0,
    pictures: Annotated[bool, typer.Option("--pictures", help="Pictures in zips in place of census rows.")] = False,
) -> None:
    """Kill prepare at random moments and account for every row."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    started = time.monotonic()
    wanted = kills or (3 if quick else 20)
    with tempfile.TemporaryDirectory(prefix="mlspark-kills-") as name, reader(Path(name), "prepare_kills") as spark:
        bench = Bench(spark, Path(name), seed, Pictures if pictures else Census)
        empty = bench.starts[0].times
        print("undisturbed: " + ", ".join(f"{moment} {empty[moment]:.1f} s" for moment in PREPARE.moments))
        tries = islice(zip(cycle(_AIMS), cycle(bench.starts), strict=False), 3 * wanted)
        hit = 0
        for aim, start in tries:
            if hit == wanted:
                break
            hit += bench.kill_driver(start, aim)
        executors = kill_executors(bench, max(1, wanted // 4))
        result = bench.result
    seconds = time.monotonic() - started
    figures = result.figures(
        hit + executors,
        seconds,
        moments=(*PREPARE.moments, "executor"),
        seed=seed,
        driver_kills=hit,
        executor_kills=executors,
    )
    is_right = report(figures, json_file)
    raise typer.Exit(int(not is_right or hit < wanted))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
