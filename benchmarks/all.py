"""Every ratio with its aim, measured in one go, beside those of the last time.

    python benchmarks/all.py [--quick] [--only SCRIPT ...] [--folder FOLDER] [--kept FILE] [--write]

Runs the benchmarks below one after another, each as its own command, and keeps what each writes in FOLDER (by default below
the user's cache, by commit): run it again and those that are done are not repeated. Then it prints one table: the figure,
its least and greatest round where the benchmark tells them, the aim and whether it is met, and the kept figure. `slower` is
a ratio that is worse than the kept one by more than its noise: what the rounds of both span, or a tenth where there is one
round. --write keeps the figures in docs/benchmarks.json and the table beside it, with machine and commit.

The quick ones say whether everything runs; their figures are of too little data, and are not kept. All take about two hours
on two idle cores. Exits with 1 when a benchmark fails, or when a figure is slower.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "benchmarks.json"
_NOISE = 0.1
"""Share by which a ratio of one round differs from itself."""


@dataclass(frozen=True)
class Figure:
    """A ratio of a benchmark."""

    script: str
    key: str
    words: str
    aim: float | None
    is_more_better: bool = True

    def is_met(self, value: float) -> bool:
        """Whether the aim is met, if there is one."""
        return self.aim is None or (value >= self.aim if self.is_more_better else value <= self.aim)

    def is_worse(self, new: "Measured", old: "Measured") -> bool:
        """Whether the new one is worse by more than both are noisy."""
        return new.most < old.least if self.is_more_better else new.least > old.most


@dataclass(frozen=True)
class Measured:
    """What a figure was, and the least and greatest of its rounds."""

    value: float
    least: float
    most: float


FIGURES = (
    Figure("streaming", "over_read_table", "stream / read_table, flat zstd", 0.65),
    Figure("streaming", "vector_over_read_table", "the same, lz4 feature table", 0.95),
    Figure("streaming", "memory_over_numpy", "epoch from memory / numpy", 0.5),
    Figure("streaming", "over_petastorm_batched", "stream / Petastorm's BatchedDataLoader", 10),
    Figure("streaming", "over_torchdata_nodes", "in table order: stream / torchdata's nodes", 1.2),
    Figure("streaming", "over_torchdata_nodes_shuffled", "shuffled: stream / torchdata's nodes", 2),
    Figure("streaming", "peak_over_window", "peak memory of a rank / a window's bytes", 2.5, is_more_better=False),
    Figure("streaming", "resume_ratio", "first batch at 90 % of an epoch / at 0 %", 1.5, is_more_better=False),
    Figure("streaming", "over_raw_hdfs", "HDFS: stream / read_table", 0.9),
    Figure("streaming", "over_raw_s3", "S3: stream / read_table", 0.9),
    Figure("features", "over_pyspark_ml", "fit, transform, write: pyspark.ml / ours", 3),
    Figure("features", "transform_over_scan", "transform / scan", 1.5, is_more_better=False),
    Figure("features", "scale_10x", "ten times the rows", 10.5, is_more_better=False),
    Figure("small_jobs", "demo_ratio", "demo / that of a269e8a", 0.4, is_more_better=False),
    Figure("small_jobs", "census_prepare_ratio", "prepare, 20,000 rows / the same", 0.35, is_more_better=False),
    Figure("small_jobs", "census_score_ratio", "score, 20,000 rows / the same", 0.35, is_more_better=False),
    Figure(
        "small_jobs", "csv_infer_ratio", "contract infer, CSV / the same, processor seconds", 0.3, is_more_better=False
    ),
    Figure("small_jobs", "csv_prepare_ratio", "prepare, CSV, the same", 0.3, is_more_better=False),
    Figure("small_jobs", "csv_score_ratio", "score, CSV, the same", 0.3, is_more_better=False),
    Figure("small_jobs", "parquet_prepare_ratio", "prepare, Parquet, the same", 0.3, is_more_better=False),
    Figure("small_jobs", "parquet_score_ratio", "score, Parquet, the same", 0.3, is_more_better=False),
    Figure(
        "wide_rows",
        "first_rows_ratio",
        "first rows of a wide encoder / the same of a269e8a",
        0.25,
        is_more_better=False,
    ),
    Figure("training", "step_ratio", "step / bare torchrun's", 1.05, is_more_better=False),
    Figure("training", "memory_step_ratio", "the same, rows in memory", 1.05, is_more_better=False),
    Figure("training", "data_wait", "share of training that waits for data", 0.03, is_more_better=False),
    Figure("pictures", "over_decode_only", "pictures / bare decoder", 0.9),
    Figure("pictures", "over_imagefolder", "pictures / ImageFolder", 1.9),
    Figure("pictures", "over_webdataset", "pictures / WebDataset", 1.6),
    Figure("pictures", "over_mds", "pictures / MosaicML Streaming", 1.15),
    Figure("scoring", "over_predict_batch_udf", "scoring: predict_batch_udf / ours", 2),
    Figure("scoring", "over_spark_udf", "MLflow's spark_udf / ours", 5),
    Figure("scoring", "over_bare", "bare mapInArrow / ours", 1),
    Figure("scoring", "growth_10x", "ten times the rows", 10.5, is_more_better=False),
    Figure("serving", "requests_ratio_1", "requests/s, one client / MLflow's", 5),
    Figure("serving", "p99_ratio_1", "its p99 / MLflow's", 0.3, is_more_better=False),
    Figure("serving", "requests_ratio_32", "requests/s, 32 clients / MLflow's", 5),
    Figure("serving", "p99_ratio_32", "their p99 / MLflow's", 0.3, is_more_better=False),
    Figure("engines", "int8_over_eager", "ResNet-20: int8 / eager", 3.7),
    Figure("engines", "bf16_over_eager", "bfloat16 / eager", None),
    Figure("engines", "trees_over_baseline", "trees: scikit-learn's fit / ours", 15),
    Figure("prepare_scale", "rules_ratio", "prepare with 30 rules / without", 1.15, is_more_better=False),
    Figure("prepare_scale", "scale_10x", "ten times the rows", 10.5, is_more_better=False),
)
"""All ratios that have an aim, in the order of the table."""

OPTIONS: Mapping[str, tuple[str, ...]] = {"streaming": ("--stores",), "training": ("--rounds", "10")}
"""What a benchmark is run with."""


def measured(found: Mapping[str, Any], figure: Figure) -> Measured | None:
    """Return a figure of what a benchmark wrote; None where it has none, as of a peer that cannot be installed."""
    value = found.get(figure.key)
    if value is None:
        return None
    least, most = found.get("ranges", {}).get(figure.key, (value, value))
    if least == most:
        least, most = sorted((value * (1 - _NOISE), value * (1 + _NOISE)))
    return Measured(float(value), float(least), float(most))


def run(script: str, file: Path, *, is_quick: bool) -> bool:
    """Run a benchmark unless its figures are there; return whether they are."""
    if file.exists():
        print(f"{script}: done before, {file}", flush=True)
        return True
    print(f"{script}: see {file.with_suffix('.log')}", flush=True)
    made = file.with_suffix(".part")
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--json", str(made), *OPTIONS.get(script, ())]
    with file.with_suffix(".log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            [*command, *(["--quick"] if is_quick else [])], stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode or not made.exists():
        print(f"{script}: failed with status {done.returncode}", flush=True)
        return False
    made.replace(file)
    return True


def rows_of(found: Mapping[str, Any], kept: Mapping[str, Any]) -> list[tuple[Figure, Measured, Measured | None]]:
    """Return the figures that were measured, each with the kept one where there is one."""
    rows = []
    for figure in FIGURES:
        new = measured(found.get(figure.script, {}), figure)
        if new is not None:
            rows.append((figure, new, measured(kept.get(figure.script, {}), figure)))
    return rows


def table(rows: Iterable[tuple[Figure, Measured, Measured | None]]) -> str:
    """Return Markdown."""
    lines = [
        "| benchmark | what | measured | rounds | aim | met | kept |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for figure, new, old in rows:
        sign = "at least" if figure.is_more_better else "at most"
        aim = "" if figure.aim is None else f"{sign} {figure.aim:g}"
        is_met = "" if figure.aim is None else "yes" if figure.is_met(new.value) else "**no**"
        before = "" if old is None else f"{old.value:.3g}{', **slower**' if figure.is_worse(new, old) else ''}"
        span = f"{new.least:.3g}-{new.most:.3g}"
        lines.append(f"| {figure.script} | {figure.words} | {new.value:.3g} | {span} | {aim} | {is_met} | {before} |")
    return "\n".join(lines) + "\n"


def head() -> str:
    """Return the commit that is measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def machine(commit: str) -> str:
    """Return the machine and the commit in words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[2]
    hardware = f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB"
    return f"{hardware}, Python {platform.python_version()}, commit {commit}, load {load:.1f}"


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Little data; figures are not kept.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A benchmark by name; may be repeated.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of what each writes.")] = None,
    kept_file: Annotated[Path, typer.Option("--kept", help="Figures of the last time.", show_default=False)] = KEPT,
    write: Annotated[bool, typer.Option("--write", help="Keep the figures, and the table beside them.")] = False,
) -> None:
    """Measure everything."""
    scripts = list(dict.fromkeys(figure.script for figure in FIGURES))
    if unknown := sorted({*(only or ())} - {*scripts}):
        raise typer.BadParameter(f"{', '.join(unknown)}: expected {', '.join(scripts)}", param_hint="--only")
    if quick and write:
        raise typer.BadParameter("figures of little data are not kept", param_hint="--write")
    commit = head()
    about = machine(commit)
    place = folder or Path.home() / ".cache" / "mlspark" / "benchmarks" / f"{commit}{'-quick' if quick else ''}"
    place.mkdir(parents=True, exist_ok=True)
    wanted = [script for script in scripts if not only or script in only]
    failed = [script for script in wanted if not run(script, place / f"{script}.json", is_quick=quick)]
    found = {name: json.loads((place / f"{name}.json").read_text("utf-8")) for name in wanted if name not in failed}
    kept = json.loads(kept_file.read_text("utf-8")) if kept_file.exists() and not quick else {}
    rows = rows_of(found, kept.get("figures", {}))
    print(f"\n{about}\n\n{table(rows)}")
    if write:
        keep(kept_file, about, found, kept)
    slower = [f"{figure.script}.{figure.key}" for figure, new, old in rows if old and figure.is_worse(new, old)]
    if failed or slower:
        print(f"failed: {', '.join(failed) or 'none'}; slower than kept: {', '.join(slower) or 'none'}")
        raise typer.Exit(1)


def keep(file: Path, about: str, found: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """Write the page and its figures; those of benchmarks that were not run stay, with their own machine."""
    names = {figure.script: {"ranges"} for figure in FIGURES}
    for figure in FIGURES:
        names[figure.script].add(figure.key)
    figures, machines = dict(kept.get("figures", {})), dict(kept.get("machines", {}))
    for script, all_figures in found.items():
        figures[script] = {key: value for key, value in all_figures.items() if key in names[script]}
        machines[script] = about
    content = {"machines": machines, "figures": figures}
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    places = "".join(f"* {script}: {machines[script]}\n" for script in sorted(machines))
    file.with_suffix(".md").write_text(
        "# All ratios\n\nWritten by `python benchmarks/all.py --write`. Each benchmark's `--help` says what stands on "
        "both sides. `rounds` are the least and greatest of single rounds; a tenth to either side where a benchmark does "
        "not tell them.\n\n"
        f"{table(rows_of(figures, {}))}\nMeasured on:\n\n{places}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    app()
