"""Once and only once: score killed at random moments, and what readers of the scores see then and after a re-run.

    python benchmarks/score_kills.py [--quick] [--json FILE] [--kills N] [--seed S]

A model is trained on census-like rows. Then jobs/score.py scores rows with broken ones among them, in a session of its own
with a JVM of its own, and its whole process group gets SIGKILL: three of eight times at a moment drawn evenly from the
undisturbed time between Spark being up and the end, else between the appearance of one kind of file and the next, so that
the milliseconds of a Delta commit are hit too. Three starting points take turns: no score table yet, one that holds the
scores of other rows, and none where the rows are in three files that are scored one by one (`scoring.files_at_once`).

After each kill a reader looks: a half is a part of the table whose rows are not as many as its commit says, or that no
commit names, or whose quarantine is not whole, or rows that are neither those from before nor those that the job was to
write; of files that are scored one by one those of some may be there. Then score runs to its end in this process, and all
scores and bad rows are compared, as multisets, with those of an undisturbed job; so they are after VACUUM with retention 0,
which must take away every file that no version needs. A third run must find that all is done.

20 kills take 7 minutes on two idle cores. Exits with 1 when a row is lost, duplicated, or half visible.
"""

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import typer
from _killed_job import CLOCK, ROOT, SCORE, Job, overrides
from _table_views import Result, View, counted, files_not_needed, orphans, reader, report, write_rows
from pyspark.sql import SparkSession

from mlspark import quarantine as quarantines
from mlspark import tables
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.stages.train import train

_AIMS = (
    "quarantine committed",
    CLOCK,
    "scores commit begun",
    "score files",
    CLOCK,
    "quarantine files",
    "scores committed",
    CLOCK,
)


@dataclass
class Start:
    """What a run finds."""

    name: str
    home: Path | None
    """Folder whose score table and quarantine are there already; None: there are none."""
    source: str = "test.csv"
    options: tuple[str, ...] = ()
    before: View = field(default_factory=View)
    after: View = field(default_factory=View)
    times: Mapping[str, float] = field(default_factory=dict)
    """Moment -> seconds after the start of an undisturbed job."""


def look(spark: SparkSession, settings: Settings, *, whole_history: bool = True) -> View:
    """Return what a reader sees; every version counts when it is not whole, or only the newest."""
    scores, quarantine = settings.table("scores"), settings.table("scores_quarantine")
    history = tables.commits(scores)
    if not history:
        return View()
    halves = 0
    for place, commit in enumerate(history if whole_history else history[:1]):
        said = {each.metadata["id"]: each.metadata for each in history[place:]}
        rows = tables.read(spark, scores, version=commit.version).select("score_id").collect()
        bad = quarantines.read(spark, quarantine, list(said)).select("job_id").collect()
        good_by_id = Counter({score_id: metadata["rows_good"] for score_id, metadata in said.items()})
        bad_by_id = Counter({score_id: metadata["rows_quarantined"] for score_id, metadata in said.items()})
        is_whole = good_by_id == Counter(row[0] for row in rows) and bad_by_id == Counter(row[0] for row in bad)
        halves += not is_whole
    ids = [commit.metadata["id"] for commit in history]
    bad = quarantines.read(spark, quarantine, ids).collect()
    return View(counted(tables.read(spark, scores).collect()), counted(bad), halves)


class Bench:
    """The data, the model, the starting points and the reader's session."""

    def __init__(self, spark: SparkSession, folder: Path, seed: int) -> None:
        self.spark, self.folder, self.result = spark, folder, Result()
        self.random = random.Random(seed)
        self.data, self._trained, self._runs = folder / "data", folder / "trained", 0
        learn, test = write_rows(self.data, seed)
        (self.data / "learn").mkdir()
        (self.data / "learn" / "day1.csv").write_bytes(b"".join(learn))
        (self.data / "test.csv").write_bytes(b"".join(test))
        (self.data / "others.csv").write_bytes(b"".join(learn[:500]))
        (self.data / "days").mkdir()
        for day in range(3):
            (self.data / "days" / f"day{day}.csv").write_bytes(b"".join(test[day::3]))
        pipeline = self._settings(self._trained, "test.csv")
        prepare(spark, pipeline)
        train(spark, pipeline)
        others = folder / "others"
        score(spark, self._settings(others, "others.csv"))
        before = look(spark, self._settings(others, "others.csv"))
        by_file = Start("files", None, "days", ("scoring.files_at_once=1",))
        self.starts = (Start("empty", None), Start("others", others, before=before), by_file)
        for start in self.starts:
            home = self._home(start)
            start.times = self._job(home, start).run()
            start.after = look(spark, self._settings(home, start.source))
            assert start.after.quarantine, "no bad rows"
            assert not start.after.num_halves
            assert not start.before.minus(start.after), "scores of other rows are gone"

    def kill(self, start: Start, aim: str) -> bool:
        """Kill a run, look, run to the end, compare, vacuum, compare. False when it ended before it was killed."""
        home = self._home(start)
        settings = self._settings(home, start.source, start.options)
        job = self._job(home, start)
        drawn = job.wait_for(aim, start.times, self.random)
        if job.has_ended():
            print(f"{start.name:<9}{drawn:<31}had ended", flush=True)
            return False
        moment = job.kill()
        seen = look(self.spark, settings)
        is_old_or_new = any(not seen.minus(whole) and not whole.minus(seen) for whole in (start.before, start.after))
        is_old_or_new |= bool(start.options) and not seen.minus(start.after)
        self.result.visible_halves += seen.num_halves + (not is_old_or_new)
        kinds = ("scores", "scores_quarantine")
        left = sum(orphans(settings.table(kind)) for kind in kinds)
        report = score(self.spark, settings)
        self.result.unaccounted += abs(report["rows_read"] - report["rows_scored"] - report["rows_quarantined"])
        self.result.compare(look(self.spark, settings), start.after)
        for kind in kinds:
            self.result.left_after_vacuum += files_not_needed(self.spark, settings.table(kind))
        assert score(self.spark, settings)["already_done"]
        self.result.compare(look(self.spark, settings, whole_history=False), start.after)
        self.result.left_files += left
        self.result.by_moment[moment] += 1
        self.result.by_start[start.name] += 1
        state = "new" if seen.rows == start.after.rows else "old"
        print(f"{start.name:<9}{drawn:<31}killed after {moment:<23}{state} rows seen, {left} files left", flush=True)
        shutil.rmtree(home)
        shutil.rmtree(job.scratch)
        return True

    def _home(self, start: Start) -> Path:
        """Return a new storage root as `start` wants it."""
        self._runs += 1
        home = self.folder / f"run{self._runs}"
        if start.home:
            shutil.copytree(start.home, home)
        return home

    def _job(self, home: Path, start: Start) -> Job:
        return Job(SCORE, home, [*self._overrides(home, start.source), *start.options])

    def _settings(self, home: Path, scored: str, options: Sequence[str] = ()) -> Settings:
        return loading.load([str(ROOT / "conf" / "census.yaml")], [*self._overrides(home, scored), *options])

    def _overrides(self, home: Path, scored: str) -> list[str]:
        """Return the settings of a run whose tables are in `home`, with the one model that there is."""
        store = self._trained / "mlflow" / "mlflow.db"
        model = ["model.kind=trees", "model.num_rounds=20"]
        comment = ["scoring.source.comment=''", "scoring.model=challenger"]
        tracking = [] if home == self._trained else [f"tracking.uri=sqlite:///{store}"]
        return [*overrides(home, self.data), *model, *tracking, *comment, f"scoring.source.path={scored}"]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="3 kills instead of 20.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    kills: Annotated[int | None, typer.Option(help="How many.")] = None,
    seed: Annotated[int, typer.Option(help="Of the rows and of the moments.")] = 0,
) -> None:
    """Kill score at random moments and account for every row."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    started = time.monotonic()
    wanted = kills or (3 if quick else 20)
    with tempfile.TemporaryDirectory(prefix="mlspark-kills-") as name, reader(Path(name), "score_kills") as spark:
        bench = Bench(spark, Path(name), seed)
        print("undisturbed: " + ", ".join(f"{key} {value:.1f} s" for key, value in bench.starts[0].times.items()))
        hit = 0
        for aim, start in islice(zip(cycle(_AIMS), cycle(bench.starts), strict=False), 3 * wanted):
            if hit == wanted:
                break
            hit += bench.kill(start, aim)
        result = bench.result
    figures = result.figures(hit, time.monotonic() - started, moments=SCORE.moments, seed=seed)
    is_right = report(figures, json_file)
    raise typer.Exit(int(not is_right or hit < wanted))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
