"""What the first rows of a wide encoder take, beside the same of an earlier commit: seconds and processor seconds.

    python benchmarks/wide_rows.py [--quick] [--json FILE] [--base COMMIT] [--rounds N]

20,000 rows of 100 numbers (scaled, with log1p and indicator, ranked, in buckets) and 100 texts (by index, one-hot, target,
frequency) become 1,543 outputs. Each side fits its encoder once. Then the two take turns, every other round backwards, each
time in a new process with a session such as a job on that many bytes has: it asks for the outputs of all rows and takes the
first 100 of them, after a query that has nothing to do with features. Measured is from asking to having them: what Spark
plans and compiles, for the most part.

    first_rows_ratio       by the clock, now / base, median of the rounds' ratios. Aim: at most 0.25
    first_rows_cpu_ratio   the same in processor seconds of Python and Java
    fit_ratio, fit_cpu_ratio  of the one fit of each side: two passes
"""

import json
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import _wide_rows
import typer
from _figures import paired, tell
from small_jobs import ROOT, Cost, Side, checked_out, run, spread

from mlspark import child_processes

_BASE = "a269e8a"
_AIM = 0.25
_UNITS = {"seconds": "", "processor_seconds": "_cpu"}


def cost(side: Side, num_columns: int, *arguments: str) -> tuple[Cost, int]:
    """Return what a process of one side measured, and how many outputs its encoder has."""
    side.home.mkdir(exist_ok=True)
    script = [sys.executable, _wide_rows.__file__, str(side.home), str(num_columns)]
    run(side, [*script, *arguments], side.home, side.home.parent)
    figures: dict[str, Any] = json.loads((side.home / "figures.json").read_text())
    return Cost(figures["seconds"], figures["processor_seconds"]), figures["outputs"]


def measure(base: str, num_columns: int, rounds: int) -> tuple[dict[str, Cost], dict[str, list[Cost]], int]:
    """Return what the fit of each side took, what the first rows did in each round, and the number of outputs."""
    costs: dict[str, list[Cost]] = {}
    outputs = 0
    with tempfile.TemporaryDirectory(prefix="mlspark-wide-") as name:
        folder = Path(name)
        _wide_rows.write(folder, num_columns)
        with checked_out(base, folder) if base else nullcontext() as tree:
            sides = [Side("base", tree, folder / "base")] if tree else []
            sides.append(Side("now", ROOT, folder / "now"))
            fits = {side.name: cost(side, num_columns, "--fit")[0] for side in sides}
            for number in range(rounds):
                for side in sides if number % 2 == 0 else reversed(sides):
                    took, outputs = cost(side, num_columns)
                    costs.setdefault(side.name, []).append(took)
                    print(f"{side.name:<6}{took.seconds:8.1f} s{took.processor_seconds:8.1f} processor s", flush=True)
    return fits, costs, outputs


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the columns, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    base: Annotated[str, typer.Option(help="Commit to compare with; empty: none.")] = _BASE,
    rounds: Annotated[int | None, typer.Option(help="Runs of each side; 3 unless --quick.")] = None,
) -> None:
    """Measure what the first rows of a wide encoder take."""
    child_processes.adopt_orphans()
    fits, costs, outputs = measure(base, 10 if quick else 100, rounds or (1 if quick else 3))
    spreads = {side: {unit: spread(each, unit) for unit in _UNITS} for side, each in costs.items()}
    for side, of_side in spreads.items():
        for unit, values in of_side.items():
            print(f"{side:<6}{unit:<20}" + "".join(f"{value:8.1f}" for value in values.values()))
    figures: dict[str, Any] = {"outputs": outputs, "cores": os.cpu_count(), "first_rows_aim": _AIM}
    ranges = {}
    for unit, word in _UNITS.items():
        figures[f"first_rows{word}_seconds"] = round(spreads["now"][unit]["median"], 1)
        figures[f"fit{word}_seconds"] = round(getattr(fits["now"], unit), 1)
        if base:
            pair = [[getattr(each, unit) for each in costs[side]] for side in ("now", "base")]
            figures[f"first_rows{word}_ratio"], ranges[f"first_rows{word}_ratio"] = paired(*pair)
            figures[f"fit{word}_ratio"] = getattr(fits["now"], unit) / getattr(fits["base"], unit)
    tell(figures, json_file, {"ranges": ranges, "spreads": spreads})


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
