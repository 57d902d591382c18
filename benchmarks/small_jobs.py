"""What jobs on little data take, beside the same jobs of an earlier commit: seconds and processor seconds.

    python benchmarks/small_jobs.py [--quick] [--json FILE] [--base COMMIT] [--only CASE ...] [--rounds N]

Both run from files of git, in the environment of this very Python, each case as its command line does: `mlspark demo`,
`mlspark contract infer`, `spark-submit jobs/prepare.py` and `score.py`. The two take turns, and every other round goes
backwards. Every preparation begins with an empty storage root, every scoring with a registered version and no score table.

    demo                 `mlspark demo` on 18,000 made-up census rows, by the clock. Aim: at most 0.4 of the base
    census prepare, score  20,000 census rows, by the clock. Aim: at most 0.35
    csv infer, prepare, score  CSV of 100,000 rows x 41 columns, as KDD Cup 99 is, in processor seconds. Aim: at most 0.3
    parquet prepare, score  Parquet of 250,000 rows x 30 columns, 13 entries of features, likewise. Aim: at most 0.3

Processor seconds are those of all processes of a job: Python, both JVMs that spark-submit starts, Python's workers. Those
that outlive their parent are counted on Linux only. A ratio is the median of those of the rounds; least, median and greatest
of everything are printed.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import _small_tables as tables
import typer
from _figures import paired, tell

from mlspark import child_processes

ROOT = Path(__file__).resolve().parents[1]
_BASE = "a269e8a"
_LONGEST_SECONDS = 1800.0


@dataclass(frozen=True)
class Side:
    """A tree of files whose jobs are run."""

    name: str
    tree: Path
    home: Path

    @property
    def is_early(self) -> bool:
        """Whether the tree is of the time before each command had a file of its own."""
        return not (self.tree / "mlspark" / "commands").exists()

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `mlspark ARGUMENTS`."""
        module = "mlspark.cli" if self.is_early else "mlspark.commands.main"
        return [sys.executable, "-c", f"from {module} import main; main()", *arguments]

    def job(self, name: str, *arguments: str) -> list[str]:
        """Return the command line of jobs/NAME.py."""
        return [str(Path(sys.executable).with_name("spark-submit")), f"jobs/{name}.py", *arguments]


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    seconds: float
    processor_seconds: float


def run(side: Side, command: Sequence[str], home: Path, data: Path) -> Cost:
    """Run a command of one side to its end, and return what all of its processes took.

    Raises:
        SystemExit: it failed, or did not end in half an hour; with what it printed.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("SPARK_HOME", "MLFLOW_TRACKING_URI")}
    environment = kept | {
        "PYTHONPATH": str(side.tree),
        "SPARK_CONF_DIR": str(side.tree / "conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "MLSPARK_HOME": str(home),
        "MLSPARK_DATA": str(data),
    }
    used, started = _used(), time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=side.tree, env=environment, stdout=log, stderr=log)
        try:
            status = process.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        seconds = time.monotonic() - started
        _wait_for_orphans()
        if status:
            log.seek(0)
            raise SystemExit(f"{side.name}: {' '.join(command)}: status {status}\n{log.read().decode()[-4000:]}")
    return Cost(seconds, _used() - used)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _wait_for_orphans() -> None:
    """Wait for processes that the command has left behind, which are ours by now."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


@dataclass(frozen=True)
class Case:
    """One command line that is measured on both sides."""

    name: str
    aim: float
    unit: str
    """Field of `Cost` that the aim is of."""
    command: Callable[[Side], list[str]]
    data: Path
    begins_with: str = ""
    """Home, below the side's, that the command works on, without its scores; none: an empty one."""

    def measure(self, side: Side) -> Cost:
        """Run it once."""
        home = side.home / (self.begins_with or "new")
        if self.begins_with:
            for table in (home / "tables").glob("*_scores*"):
                shutil.rmtree(table)
        else:
            shutil.rmtree(home, ignore_errors=True)
        return run(side, self.command(side), home, self.data)


def census_cases(data: Path) -> Iterator[Case]:
    """Yield preparing and scoring of census rows."""
    config = ["--config", "conf/census.yaml"]
    fresh = ["--set", f"scoring.source.path={data}/fresh/adult/adult.test", "--set", "scoring.model=1"]
    yield Case("census prepare", 0.35, "seconds", lambda side: side.job("prepare", *config), data)
    yield Case("census score", 0.35, "seconds", lambda side: side.job("score", *config, *fresh), data, "census")


def table_cases(name: str, source: dict[str, Any], contract: dict[str, Any], features: Any, data: Path) -> list[Case]:
    """Return preparing and scoring of the pipeline NAME, whose settings are written into `data`."""
    contract_file = data / f"{name}.json"
    contract_file.write_text(json.dumps(contract))
    for is_early in (False, True):
        text = tables.pipeline(name, source, features, contract=str(contract_file), before_tasks=is_early)
        _config(name, data, is_early).write_text(text)

    def command(job: str, *arguments: str) -> Callable[[Side], list[str]]:
        return lambda side: side.job(job, "--config", str(_config(name, data, side.is_early)), *arguments)

    version = ("--set", "scoring.model=1")
    return [
        Case(f"{name} prepare", 0.3, "processor_seconds", command("prepare"), data),
        Case(f"{name} score", 0.3, "processor_seconds", command("score", *version), data, name),
    ]


def _config(name: str, data: Path, is_early: bool) -> Path:
    return data / f"{name}{'-early' if is_early else ''}.yaml"


def cases(folder: Path, *, is_quick: bool) -> list[Case]:
    """Return all cases, whose data is written below `folder`."""
    divisor = 25 if is_quick else 1
    data = folder / "data"
    tables.write_census(data, 20_000 // divisor)
    (folder / "demo").mkdir()
    tables.census_like.write(folder / "demo")
    tables.write_connections(data / "connections.csv", 100_000 // divisor)
    tables.write_measures(data / "measures.parquet", 250_000 // divisor)
    inferring = ["contract", "infer", str(data / "connections.csv"), "--kind", "csv", "--label", "label"]
    inferring += ["--columns", ",".join(tables.CONNECTIONS)]
    csv, parquet = {"kind": "csv", "path": "connections.csv"}, {"kind": "parquet", "path": "measures.parquet"}
    return [
        Case("demo", 0.4, "seconds", lambda side: side.command("demo"), folder / "demo"),
        *census_cases(data),
        Case("csv infer", 0.3, "processor_seconds", lambda side: side.command(*inferring), data),
        *table_cases("csv", csv, tables.contract_of_connections(), tables.features_of_connections(), data),
        *table_cases("parquet", parquet, tables.contract_of_measures(), tables.features_of_measures(), data),
    ]


def train(side: Side, case: Case, data: Path) -> None:
    """Prepare and train, an epoch only, what `case` scores with."""
    name = case.begins_with
    config = "conf/census.yaml" if name == "census" else str(_config(name, data, side.is_early))
    for job, *settings in (["prepare"], ["train", "training.epochs=1", "training.global_batch_size=8192"]):
        overrides = [f"--set={setting}" for setting in settings]
        run(side, side.job(job, "--config", config, *overrides), side.home / name, data)


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Yield a folder with the files of a commit."""
    tree = folder / "base-tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def measure(chosen: Sequence[Case], sides: Sequence[Side], rounds: int) -> dict[str, dict[str, list[Cost]]]:
    """Return case -> side -> what its runs took."""
    costs: dict[str, dict[str, list[Cost]]] = {case.name: {side.name: [] for side in sides} for case in chosen}
    for number in range(rounds):
        turns = [(case, side) for case in chosen for side in sides]
        for case, side in turns if number % 2 == 0 else reversed(turns):
            cost = case.measure(side)
            costs[case.name][side.name].append(cost)
            print(
                f"{case.name:<16}{side.name:<6}{cost.seconds:8.1f} s{cost.processor_seconds:8.1f} processor s",
                flush=True,
            )
    return costs


def spread(costs: Sequence[Cost], unit: str) -> dict[str, float]:
    """Return least, median and greatest."""
    values = [getattr(cost, unit) for cost in costs]
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A twenty-fifth of the rows, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    base: Annotated[str, typer.Option(help="Commit to compare with; empty: none.")] = _BASE,
    only: Annotated[list[str] | None, typer.Option(help="A case, by its name; may be repeated.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Runs of each case and side; 3 unless --quick.")] = None,
) -> None:
    """Measure what jobs on little data take."""
    child_processes.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="mlspark-small-") as name:
        folder = Path(name)
        chosen = [case for case in cases(folder, is_quick=quick) if not only or case.name in only]
        with checked_out(base, folder) if base else _nothing() as tree:
            sides = [Side("base", tree, folder / "base"), Side("now", ROOT, folder / "now")] if tree else []
            sides = sides or [Side("now", ROOT, folder / "now")]
            for case in chosen:
                for side in sides if case.begins_with else ():
                    train(side, case, folder / "data")
            costs = measure(chosen, sides, rounds or (1 if quick else 3))
    report(chosen, costs, json_file)


def report(chosen: Sequence[Case], costs: dict[str, dict[str, list[Cost]]], json_file: Path | None) -> None:
    """Print least, median and greatest of each case and side, then the ratios with their aims."""
    units, figures, ranges = ("seconds", "processor_seconds"), {}, {}
    spreads = {
        case: {side: {unit: spread(each, unit) for unit in units} for side, each in of_case.items()}
        for case, of_case in costs.items()
    }
    print(f"\n{'case':<16}{'side':<6}{'':<20}{'min':>8}{'median':>8}{'max':>8}")
    for case, of_case in spreads.items():
        for side, of_side in of_case.items():
            for unit, values in of_side.items():
                print(f"{case:<16}{side:<6}{unit:<20}" + "".join(f"{value:8.1f}" for value in values.values()))
    print()
    for each in chosen:
        name, of_case = each.name.replace(" ", "_"), spreads[each.name]
        now = of_case["now"][each.unit]["median"]
        figures[f"{name}_{each.unit}"] = round(now, 1)
        if "base" in of_case:
            pair = [[getattr(cost, each.unit) for cost in costs[each.name][side]] for side in ("now", "base")]
            ratio, ranges[f"{name}_ratio"] = paired(*pair)
            figures[f"{name}_ratio"], figures[f"{name}_aim"] = round(ratio, 3), each.aim
    tell({**figures, "cores": os.cpu_count()}, json_file, {"ranges": ranges, "spreads": spreads})


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
