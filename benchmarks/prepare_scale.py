"""What checking 30 rules costs prepare, how its time and memory grow with the rows, how often it reads the source.

    python benchmarks/prepare_scale.py [--quick] [--json FILE] [--rows N] [--rounds N]

Census-like rows, one of 200 broken, are prepared with a contract of 30 rules (ranges, lists, patterns, lengths, row
expressions), with one of the same types and no rules but the label's, and a tenth of the rows with the 30 rules. Each run
is a process of its own with a new JVM (local[2] and 2 GB as in `session.defaults`) and an empty storage root; the three
take turns, and every other round goes backwards, so that a machine that gets slower or faster favours none.

    rules_ratio       median seconds with the rules / median seconds without. Seconds are those of `prepare` itself; the
                      start of the JVM, some 5 s, is not among them. Aim: at most 1.15
    scale_10x         median seconds of all rows / of a tenth of them. Aim: at most 10.5
    driver_rss_ratio  peak resident memory of the driver's Python (VmHWM; ru_maxrss where there is no /proc), all rows /
                      a tenth. Aim: about 1. `heap_ratio` is the same of the JVM heap in use after a full collection
                      when prepare has ended: what the driver keeps. In local mode this JVM runs the tasks too, so its
                      peak is bounded by spark.driver.memory and says nothing about the driver
    source_reads      bytes that the JVM read through Hadoop's file systems while prepare ran / bytes of the source. Cached
                      and shuffled rows do not pass there; tables' logs do, some kilobytes. Aim: about 1
"""

import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from _figures import tell
from pyspark.sql import SparkSession

from mlspark import session
from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import ColumnRule, Contract, RowRule
from mlspark.datasets import census_like, census_shares
from mlspark.settings import loading
from mlspark.stages.prepare import prepare

ROOT = Path(__file__).resolve().parents[1]
_NUM_RULES = 30

_TYPES = Contract(
    name="types",
    label="income",
    columns=(
        ColumnRule(name="age", type="int"),
        ColumnRule(name="workclass", type="string"),
        ColumnRule(name="fnlwgt", type="int"),
        ColumnRule(name="education", type="string"),
        ColumnRule(name="education_num", type="int"),
        ColumnRule(name="marital_status", type="string"),
        ColumnRule(name="occupation", type="string"),
        ColumnRule(name="relationship", type="string"),
        ColumnRule(name="race", type="string"),
        ColumnRule(name="sex", type="string"),
        ColumnRule(name="capital_gain", type="int"),
        ColumnRule(name="capital_loss", type="int"),
        ColumnRule(name="hours_per_week", type="int"),
        ColumnRule(name="native_country", type="string"),
        # Without these two no features can be made.
        ColumnRule(name="income", type="string", nullable=False, allowed=("<=50K", ">50K", "<=50K.", ">50K.")),
    ),
)
_COLUMN_RULES: dict[str, dict[str, Any]] = {
    "age": {"min": 17, "max": 90},
    "workclass": {"allowed": tuple(name for name in census_shares.WORKCLASS if name != "?"), "max_length": 16},
    "fnlwgt": {"min": 1, "max": 2_000_000},
    "education": {"allowed": tuple(census_shares.EDUCATION), "min_length": 3},
    "education_num": {"min": 1, "max": 16},
    "marital_status": {"allowed": tuple(census_shares.MARITAL_BY_AGE)},
    "occupation": {"pattern": r"[A-Z][a-z]+(-[A-Za-z]+)*", "max_length": 17},
    "relationship": {"allowed": tuple(census_shares.RELATIONSHIP_BY_MARITAL)},
    "race": {"allowed": tuple(census_shares.RACE)},
    "sex": {"allowed": tuple(census_shares.SEX)},
    "capital_gain": {"min": 0, "max": 99_999},
    "capital_loss": {"min": 0, "max": 9_999},
    "hours_per_week": {"min": 1, "max": 99},
    "native_country": {"pattern": r"[A-Z][A-Za-z&()-]+", "max_length": 26},
}
_ROW_RULES = (
    RowRule(name="gain_or_loss", expression="capital_gain == 0 or capital_loss == 0"),
    RowRule(name="husbands_are_male", expression="relationship != 'Husband' or sex == 'Male'"),
    RowRule(name="wives_are_female", expression="relationship != 'Wife' or sex == 'Female'"),
    RowRule(name="degree_takes_years", expression="education != 'Doctorate' or age >= 22"),
    RowRule(name="years_fit_degree", expression="education != 'Bachelors' or education_num == 13"),
    RowRule(name="work_needs_occupation", expression="workclass != 'Never-worked' or occupation is missing"),
)


def ruled() -> Contract:
    """Return the contract of 30 rules beyond those that `_TYPES` has."""
    columns = tuple(ColumnRule(**column.model_dump() | _COLUMN_RULES.get(column.name, {})) for column in _TYPES.columns)
    assert sum(map(len, _COLUMN_RULES.values())) + len(_ROW_RULES) == _NUM_RULES
    return Contract(name="rules", label=_TYPES.label, columns=columns, rules=_ROW_RULES)


@dataclass(frozen=True)
class Case:
    """What one of the runs that take turns does."""

    name: str
    data: Path
    contract: Path
    rows: int


@dataclass(frozen=True)
class Run:
    """Figures of one preparation in a process of its own."""

    case: str
    rows: int
    rows_good: int
    rows_quarantined: int
    seconds: float
    cpu_seconds: float
    """Processor time of the tasks; says more than `seconds` on a busy machine."""
    python_rss_bytes: int
    """Peak."""
    heap_bytes: int
    """In use after a full collection, when prepare has ended."""
    jvm_rss_bytes: int
    """Peak; 0 where there is no /proc."""
    peak_storage_bytes: int
    """Of cached rows in memory."""
    disk_spilled_bytes: int
    """Written by shuffles and sorts that did not fit into memory."""
    bytes_read: int
    source_bytes: int


def run(case: Case, folder: Path) -> Run:
    """Return the figures of one `prepare` of `case` with tables below `folder`. For a new process."""
    # Spark's own warnings about wide plans would stand between the lines.
    os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf"))
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["SPARK_LOCAL_DIRS"] = str(folder)
    settings = loading.load(
        [str(ROOT / "conf" / "census.yaml")],
        [f"storage.root={folder / 'home'}", f"sources.root={case.data}", f"contract={case.contract}"],
    )
    spark = session.start(f"prepare_scale {case.name}")
    try:
        before = _bytes_read(spark)
        report = prepare(spark, settings)
        bytes_read = _bytes_read(spark) - before
        stages = _stages(spark)
        jvm, gateway = spark._jvm, spark.sparkContext._gateway
        assert jvm is not None
        assert gateway is not None
        jvm.System.gc()
        memory = jvm.java.lang.management.ManagementFactory.getMemoryMXBean().getHeapMemoryUsage()
        return Run(
            case=case.name,
            rows=report["rows_read"],
            rows_good=report["rows_good"],
            rows_quarantined=report["rows_quarantined"],
            seconds=report["seconds"],
            cpu_seconds=round(sum(stage.executorCpuTime() for stage in stages) / 1e9, 3),
            python_rss_bytes=_peak_rss("self") or _max_rss(),
            heap_bytes=memory.getUsed(),
            jvm_rss_bytes=_peak_rss(str(gateway.proc.pid)),
            peak_storage_bytes=_peak_storage(spark),
            disk_spilled_bytes=sum(stage.diskBytesSpilled() for stage in stages),
            bytes_read=bytes_read,
            source_bytes=sum(source["size_bytes"] for source in report["sources"].values()),
        )
    finally:
        spark.stop()


def _bytes_read(spark: SparkSession) -> int:
    """Return what all threads of the JVM have read so far through Hadoop's file systems."""
    jvm = spark._jvm
    assert jvm is not None
    return sum(each.getBytesRead() for each in jvm.org.apache.hadoop.fs.FileSystem.getAllStatistics())


def _peak_storage(spark: SparkSession) -> int:
    metrics = spark._jsc.sc().statusStore().executorSummary("driver").peakMemoryMetrics()
    return int(metrics.get().getMetricValue("OnHeapStorageMemory")) if metrics.isDefined() else 0


def _stages(spark: SparkSession) -> list[Any]:
    """Return the figures of all stages that the session has run."""
    context = spark.sparkContext
    jvm, gateway = context._jvm, context._gateway
    assert jvm is not None
    assert gateway is not None
    no_quantiles = gateway.new_array(jvm.double, 0)
    found = context._jsc.sc().statusStore().stageList(None, False, False, no_quantiles, jvm.java.util.ArrayList())
    return [found.apply(index) for index in range(found.size())]


def _peak_rss(pid: str) -> int:
    """Return VmHWM of a process; 0 where there is no /proc."""
    status = Path("/proc") / pid / "status"
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found.group(1)) * 1024 if found else 0


def _max_rss() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def measure(cases: Sequence[Case], rounds: int, folder: Path) -> dict[str, list[Run]]:
    """Return the runs of each case, which take turns."""
    runs: dict[str, list[Run]] = {case.name: [] for case in cases}
    # spawn: a process that shares nothing with this one, neither memory nor a JVM.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for number in range(rounds):
            for case in cases if number % 2 == 0 else reversed(cases):
                with tempfile.TemporaryDirectory(dir=folder) as home:
                    done = pool.submit(run, case, Path(home)).result()
                runs[case.name].append(done)
                print(
                    f"round {number + 1}: {case.name:<12}{done.seconds:8.1f} s, {done.cpu_seconds:.1f} processor s, Python "
                    f"{done.python_rss_bytes / 2**20:.0f} MiB, heap {done.heap_bytes / 2**20:.0f} MiB, "
                    f"cached {done.peak_storage_bytes / 2**20:.0f} MiB, "
                    f"source read {done.bytes_read / done.source_bytes:.3f} times",
                    flush=True,
                )
    return runs


def spread(runs: Sequence[Run], figure: Callable[[Run], float]) -> dict[str, float]:
    """Return min, median and max of a figure."""
    values = [figure(each) for each in runs]
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="200,000 rows, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows; 4,000,000 unless --quick.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Runs of each case; 3 unless --quick.")] = None,
) -> None:
    """Measure what rules cost prepare and how it grows."""
    started = time.monotonic()
    num_rows, num_rounds = rows or (200_000 if quick else 4_000_000), rounds or (1 if quick else 3)
    with tempfile.TemporaryDirectory(prefix="mlspark-scale-") as name:
        folder = Path(name)
        paths = {}
        for contract in (_TYPES, ruled()):
            paths[contract.name] = folder / f"{contract.name}.json"
            paths[contract.name].write_text(json.dumps(contracts.to_json(contract)))
        data = {}
        for size in (num_rows, num_rows // 10):
            data[size] = folder / str(size)
            census_like.write(data[size], num_train=size - size // 10, num_test=size // 10, bad_rows=size // 200)
        cases = [
            Case("rules", data[num_rows], paths["rules"], num_rows),
            Case("types", data[num_rows], paths["types"], num_rows),
            Case("rules tenth", data[num_rows // 10], paths["rules"], num_rows // 10),
        ]
        runs = measure(cases, num_rounds, folder)
    seconds = {case: spread(each, lambda done: done.seconds) for case, each in runs.items()}
    cpu = {case: spread(each, lambda done: done.cpu_seconds) for case, each in runs.items()}
    rss = {case: spread(each, lambda done: done.python_rss_bytes / 2**20) for case, each in runs.items()}
    heap = {case: spread(each, lambda done: done.heap_bytes / 2**20) for case, each in runs.items()}
    reads = spread([each for case in runs.values() for each in case], lambda done: done.bytes_read / done.source_bytes)
    figures: dict[str, Any] = {
        "rules_ratio": _ratio(seconds, "rules", "types"),
        "scale_10x": _ratio(seconds, "rules", "rules tenth"),
        "driver_rss_ratio": _ratio(rss, "rules", "rules tenth"),
        "rules_cpu_ratio": _ratio(cpu, "rules", "types"),
        "scale_cpu_10x": _ratio(cpu, "rules", "rules tenth"),
        "heap_ratio": _ratio(heap, "rules", "rules tenth"),
        "source_reads": reads["median"],
        "rows": num_rows,
        "rounds": num_rounds,
        "rows_per_second": round(num_rows / seconds["rules"]["median"]),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(f"\n{'case':<13}{'figure':<20}{'min':>10}{'median':>10}{'max':>10}")
    tables = (("seconds", seconds), ("processor seconds", cpu), ("Python RSS, MiB", rss), ("heap after GC, MiB", heap))
    for what, spreads in tables:
        for case, values in spreads.items():
            print(f"{case:<13}{what:<20}" + "".join(f"{value:>10.1f}" for value in values.values()))
    print(f"{'all':<13}{'source reads':<20}" + "".join(f"{value:>10.3f}" for value in reads.values()) + "\n")
    details = {"spread_seconds": seconds, "runs": [asdict(each) for case in runs.values() for each in case]}
    tell(figures, json_file, details)


def _ratio(spreads: dict[str, dict[str, float]], of: str, to: str) -> float:
    return round(spreads[of]["median"] / spreads[to]["median"], 3)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
