"""How often `mlspark monitor` alarms though nothing has changed, and how few rows show it a change. Needs no Spark.

    python benchmarks/monitoring.py [--quick] [--json FILE] [--data FOLDER] [--runs N]

The rows of adult/adult.data are divided at random: half are those of training, and each run draws its scored rows from the
other half. Every run makes all comparisons of the 14 columns, with the limits of `MonitoringSettings`. For 100, 300, 1,000
and 3,000 scored rows:

    over_limit_N    share of the runs in which a limit is passed: what limits alone would alarm of
    false_alarms_N  share of the runs with an alarm. Aim: at most 0.01, `monitoring.false_alarms`
    older_N         share of the runs that name `age` when everyone is 10 years older
    unseen_N        share of the runs that name `native_country` when 3 % of the rows have a new one
    missing_N       share of the runs that name `occupation` when it is missing in 15 % more of the rows
"""

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from _figures import tell

from mlspark.features.profile import of_numbers, of_values
from mlspark.monitoring import checks, comparing
from mlspark.monitoring.settings import MonitoringSettings

NUMBERS = {"age": 0, "fnlwgt": 2, "education_num": 4, "capital_gain": 10, "capital_loss": 11, "hours_per_week": 12}
TEXTS = {
    "workclass": 1, "education": 3, "marital_status": 5, "occupation": 6, "relationship": 7, "race": 8, "sex": 9,
    "native_country": 13,
}  # fmt: skip
SIZES = (100, 300, 1000, 3000)
LIMITS = MonitoringSettings()
Rows = dict[str, np.ndarray[Any, Any]]


def read(folder: Path) -> Rows:
    """Return the columns of adult.data: floats, and texts with None for "?"."""
    with (folder / "adult" / "adult.data").open(newline="") as stream:
        rows = [row for row in csv.reader(stream, skipinitialspace=True) if len(row) == 15]
    columns: Rows = {name: np.array([float(row[place]) for row in rows]) for name, place in NUMBERS.items()}
    for name, place in TEXTS.items():
        columns[name] = np.array([None if row[place] == "?" else row[place] for row in rows], dtype=object)
    return columns


def record(rows: Rows) -> dict[str, Any]:
    """Return "rows" and "columns", as a profile has them."""
    columns: dict[str, Any] = {name: of_numbers(rows[name]) for name in NUMBERS}
    for name in TEXTS:
        counts = Counter(rows[name].tolist())
        nulls = counts.pop(None, 0)
        columns[name] = of_values(counts) | {"nulls": nulls}
    return {"rows": len(rows["age"]), "columns": columns}


def verdicts(old: dict[str, Any], rows: Rows) -> set[tuple[str, str]]:
    """Return (column, verdict) of each comparison that passes its limit."""
    found = comparing.of_columns(old, record(rows), LIMITS, subject="input")
    judged = checks.judged(found, false_alarms=LIMITS.false_alarms)
    return {(check.name, check.verdict) for check in judged if check.verdict != "fine"}


def changed(rows: Rows, name: str, random: np.random.Generator) -> Rows:
    """Return the rows with one column changed as the figure of this name says."""
    size = len(rows["age"])
    if name == "older":
        return {**rows, "age": rows["age"] + 10}
    column, share, value = ("native_country", 0.03, "Atlantis") if name == "unseen" else ("occupation", 0.15, None)
    values = rows[column].copy()
    values[random.random(size) < share] = value
    return {**rows, column: values}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="20 runs.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with adult/; else $MLSPARK_DATA, or data.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="For each number of rows.")] = 1000,
) -> None:
    """Print the figures."""
    random = np.random.default_rng(0)
    whole = read(data or Path(os.environ.get("MLSPARK_DATA", "data")))
    order = random.permutation(len(whole["age"]))
    half = len(order) // 2
    old = record({name: values[order[:half]] for name, values in whole.items()})
    targets = {"older": "age", "unseen": "native_country", "missing": "occupation"}
    figures: dict[str, float] = {}
    runs = 20 if quick else runs
    num_changed = min(runs, max(20, runs // 10))
    for size in (size for size in SIZES if size <= half):
        counts: Counter[str] = Counter()
        for run in range(runs):
            chosen = random.choice(order[half:], size, replace=False)
            rows = {name: values[chosen] for name, values in whole.items()}
            found = verdicts(old, rows)
            counts["over_limit"] += bool(found)
            counts["false_alarms"] += any(verdict == "alarm" for _, verdict in found)
            if run < num_changed:
                for name, column in targets.items():
                    counts[name] += (column, "alarm") in verdicts(old, changed(rows, name, random))
        for name in ("over_limit", "false_alarms", *targets):
            figures[f"{name}_{size}"] = counts[name] / (num_changed if name in targets else runs)
    tell(figures | {"runs": runs}, json_file)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
