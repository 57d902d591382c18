"""What a process that works for long keeps: threads, open files, memory after many launches and hours of streaming.

    python benchmarks/long_run.py [--launches N] [--minutes M] [--quick] [--json FILE]

One driver process trains N runs of 2 ranks, each a few steps on local[2], and then streams the same table again and again
for M minutes, in epochs that are read to their end and epochs that are broken off. After each launch and each minute it
notes, of this process, its threads, open files and memory (RSS, MB), the memory of Spark's JVM, and the processes below it.

Nothing may grow: after the first fifth, in which caches fill, the last fifth has no more threads and files than the fifth
after the first (the least of each is compared), and memory grows by less than 1 MB for each launch and 20 MB in all of the
streaming. Exits with 1 where something does. 50 launches take about 8 minutes on two idle cores.
"""

import dataclasses
import gc
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from _figures import tell
from _training_run import COLUMNS, RANKS, new_spec, write_table

from mlspark import session
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.training.launcher import launch
from mlspark.training.spec import TrainingSpec

ROOT = Path(__file__).resolve().parents[1]
_MEGABYTES_PER_LAUNCH, _MEGABYTES_OF_STREAMING = 1.0, 20.0


def held() -> dict[str, float]:
    """Return what this process holds at this moment, garbage aside."""
    gc.collect()
    process = psutil.Process()
    children = process.children(recursive=True)
    java = [child.memory_info().rss for child in children if child.name() == "java"]
    return {
        "threads": process.num_threads(),
        "files": process.num_fds(),
        "rss_mb": round(process.memory_info().rss / 2**20, 1),
        "jvm_mb": round(sum(java) / 2**20, 1),
        "processes": len(children),
    }


def few_steps(run: Path, table: Path) -> TrainingSpec:
    """Return a run of one epoch in large batches."""
    spec = new_spec(run, table)
    task = from_settings({"kind": "binary", "target": "label", "classes": [0, 1]})
    training = spec.training.model_copy(update={"epochs": 1, "global_batch_size": 4096})
    return dataclasses.replace(spec, task=task, training=training)


def launches(folder: Path, table: Path, count: int) -> list[dict[str, float]]:
    """Train `count` runs, and return what was held after each."""
    spark = session.start("long-run", {"spark.master": f"local[{RANKS}]"})
    spark.sparkContext.setLogLevel("OFF")
    notes = []
    for number in range(1, count + 1):
        launch(spark, few_steps(folder / f"run{number}", table), lambda event: None)
        notes.append(held())
        print(f"launch {number:>3}  {line(notes[-1])}", flush=True)
    spark.stop()
    return notes


def stream(folder: Path, table: Path, minutes: float) -> tuple[list[dict[str, float]], int]:
    """Stream the training rows for `minutes`; return what was held after each tenth of that, and the rows read."""
    spec = few_steps(folder / "streamed", table)
    snapshot = Snapshot.load(spec.snapshot_uri).where(split="train")
    notes: list[dict[str, float]] = []
    num_rows, started, length = 0, time.monotonic(), minutes * 60.0
    for number in itertools.count():
        with open_feature_table(
            snapshot,
            spec.tensors,
            spec.streaming,
            rank=0,
            world_size=1,
            global_batch_size=256,
            seed=number,
            shuffle=True,
        ) as rows:
            for batches in (10, None):  # broken off, and to its end
                num_rows += sum(len(batch["row_id"]) for batch in itertools.islice(rows, batches))
        passed = time.monotonic() - started
        if passed >= length * (len(notes) + 1) / 10:
            notes.append(held())
            speed = f"{num_rows:,} rows, {num_rows / passed:,.0f} a second"
            print(f"{passed / 60:>6.1f} min  {line(notes[-1])}  {speed}", flush=True)
        if passed >= length:
            return notes, num_rows
    raise AssertionError("not reached")


def line(note: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in note.items())


def growth(notes: list[dict[str, float]], name: str) -> float:
    """Return how much more there was in the last fifth than in the fifth after the first, by the least of each."""
    fifth = max(1, len(notes) // 5)
    early, late = notes[fifth : 2 * fifth] or notes[:1], notes[-fifth:]
    return round(min(note[name] for note in late) - min(note[name] for note in early), 1)


def main(
    number: Annotated[int, typer.Option("--launches", min=1, help="Runs to train.")] = 50,
    minutes: Annotated[float, typer.Option(min=0.0, help="Minutes of streaming.")] = 30.0,
    quick: Annotated[bool, typer.Option("--quick", help="5 launches and 12 seconds of streaming.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Launch and stream for long, and see what the process keeps."""
    if quick:
        number, minutes = 5, 0.2
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="mlspark-long-") as name:
        folder, table = Path(name), Path(name) / "table"
        write_table(table)
        print(
            f"{COLUMNS.rows['train']:,} rows, {number} launches of {RANKS} ranks, {minutes:g} minutes of streaming",
            flush=True,
        )
        started = time.monotonic()
        launched = launches(folder, table, number)
        launch_seconds = (time.monotonic() - started) / number
        streamed, num_rows = stream(folder, table, minutes) if minutes else ([], 0)
    figures: dict[str, Any] = {"launches": number, "seconds_per_launch": round(launch_seconds, 2), "minutes": minutes}
    figures |= {"rows_streamed": num_rows}
    for what, notes in (("launches", launched), ("streaming", streamed)):
        figures |= {f"{what}_{name}_growth": growth(notes, name) for name in ("threads", "files", "rss_mb") if notes}
    tell(figures, json_file, {"notes": {"launches": launched, "streaming": streamed}})
    most = _MEGABYTES_PER_LAUNCH * number, _MEGABYTES_OF_STREAMING
    counts = [
        figures.get(f"{what}_{name}_growth", 0) for what in ("launches", "streaming") for name in ("threads", "files")
    ]
    is_flat = max(counts) <= 0 and figures["launches_rss_mb_growth"] <= most[0]
    is_flat &= figures.get("streaming_rss_mb_growth", 0.0) <= most[1]
    sys.exit(0 if is_flat else 1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
