"""What features cost: fit and transform beside a plain scan, a pyspark.ml Pipeline, mapInArrow and scikit-learn.

    python benchmarks/features.py [--quick] [--json FILE] [--rows N] [--rounds N] [--sink delta|parquet|noop]

Generated census rows (14 columns and the label, typed Parquet) in one session (local[2] and 2 GB as in `session.defaults`).
The cases below take turns in each round, each round begins with another one, and a round that is not counted comes first.
All write a table of 16 columns, the label and `row_id` among them, in as many files as the scan has tasks, unsorted, with
the ranges of `row_id` alone in Delta's log, as prepare does.

    scan          the 14 columns as they are: the scan and the write without features
    ours          `fit` of the features that conf/census.yaml began with (6 numbers, 3 of them with log1p, and 8 texts by
                  index), then `encode` of all rows
    pyspark.ml    the same work: SQLTransformer (casts, log1p), Imputer, VectorAssembler, StandardScaler and StringIndexer
                  (handleInvalid=keep) in a Pipeline; then its vector's elements as float columns and its indices as int
    mapInArrow    the transform of ours by `ArrowEncoder`, in Python workers
    tenth         ours on a tenth of the rows

Ratios are those of medians of seconds; `*_cpu` those of the tasks' processor time, which says more on a busy machine but
leaves out planning and Python workers.

    transform_over_scan  transform and write of ours / scan. Aim: at most 1.5
    over_pyspark_ml      fit, transform and write of pyspark.ml / of ours. Aim: at least 3
    over_map_in_arrow    transform and write by mapInArrow / of ours
    passes               rows that Spark's tasks read while ours fits / rows there are. Aim: 2
    scale_10x            fit, transform and write of ours, all rows / a tenth. Aim: at most 10.5
    driver_rss_ratio     peak resident memory of the driver's Python (VmHWM, set back before each case), all rows / a tenth.
                         Aim: about 1; 0 where there is no /proc
    wide_planning_s      200 columns (100 numbers scaled, with log1p and indicator, ranked, in buckets; 100 texts by index,
                         one-hot, target, frequency): seconds of `encode` and Spark's physical plan, no job; median of
                         3, `wide_planning_first_s` is the first. Aim: under 5. `wide_first_rows_s`: planned anew and
                         the first 100 rows in memory
    wide_passes          as `passes`. Aim: 2. `wide_fit_tiny_s`, the fit on 100 rows, is a bound of what planning it costs
    many_values          of a text: a quarter of the rows, 1,000,000 at most. `many_limit` is its max_values, a tenth of
                         them; `many_collected` are the rows that its fit collects, `many_result_mb` what tasks sent to
                         the driver, `many_rss_growth_mb` how far its Python grew
    one_row_us           microseconds of `ArrowEncoder.transform` of a table of one row, `batch_row_us` per row of 10,000;
                         `sklearn_*` those of a ColumnTransformer that does the same to a pandas frame
"""

import json
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import _wide_rows
import numpy as np
import pyarrow as pa
import typer
from _figures import tell
from pyarrow import parquet
from pyspark.ml import Pipeline
from pyspark.ml.feature import Imputer, SQLTransformer, StandardScaler, StringIndexer, VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
from sklearn.preprocessing import StandardScaler as Standardize

from mlspark import session
from mlspark.contracts import contract as contracts
from mlspark.datasets import census_like
from mlspark.features import split
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encode_spark import encoded_sql, named
from mlspark.features.encoder import Encoder
from mlspark.features.fit import fit
from mlspark.features.settings import FeaturesSettings
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.task import Task

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ("age", "education_num", "hours_per_week")
AMOUNTS = ("fnlwgt", "capital_gain", "capital_loss")
"""Numbers that get log1p."""
TEXTS = ("workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country")
_NUM_FILES = 8
_BATCH_ROWS = 10_000


INCOME = from_settings({"kind": "binary", "target": "income", "classes": ["<=50K", ">50K"]})
RICH = from_settings({"kind": "binary", "target": "rich", "classes": ["no", "yes"]})


def label(task: Task) -> Column:
    return F.expr(_label_sql(task)).alias("label")


def _label_sql(task: Task) -> str:
    return f"CAST({task.label_sql('string')} AS FLOAT)"


def declared(*inputs: dict[str, Any]) -> FeaturesSettings:
    return FeaturesSettings.model_validate_json(json.dumps({"inputs": inputs}))


CENSUS = declared(
    {"kind": "number", "columns": NUMBERS},
    {"kind": "number", "columns": AMOUNTS, "log1p": True},
    {"kind": "index", "columns": TEXTS},
)


@dataclass
class Step:
    """Figures of one step of a case: a fit, or a transform and write."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rows_read: int = 0
    result_bytes: int = 0  # sent to the driver by tasks
    rss_bytes: int = 0  # peak of the driver's Python
    rss_growth_bytes: int = 0
    num_files: int = 0  # written


Steps = dict[str, Step]


@dataclass(frozen=True)
class Bench:
    """The session, and where and how tables are written."""

    spark: SparkSession
    folder: Path
    sink: str

    @contextmanager
    def measuring(self) -> Iterator[Step]:
        """Fill in the figures of what is done meanwhile."""
        step, before, first_rss = Step(), self._stages(), _reset_peak_rss()
        started = time.monotonic()
        yield step
        step.seconds = time.monotonic() - started
        step.rss_bytes = _rss("VmHWM")
        step.rss_growth_bytes = step.rss_bytes - first_rss
        done = [stage for number, stage in self._stages().items() if number not in before]
        step.cpu_seconds = sum(stage.executorCpuTime() for stage in done) / 1e9
        step.rows_read = sum(stage.inputRecords() for stage in done)
        step.result_bytes = sum(stage.resultSize() for stage in done)

    def write(self, rows: Callable[[], DataFrame]) -> Step:
        """Return the figures of planning and writing rows as a new table."""
        table = self.folder / "table"
        with self.measuring() as step:
            writer = rows().write.format(self.sink).mode("overwrite")
            if self.sink == "delta":
                writer = writer.option("delta.dataSkippingStatsColumns", "row_id")
            writer.save(str(table))
        step.num_files = len([path for path in table.rglob("*.parquet") if "_delta_log" not in path.parts])
        shutil.rmtree(table, ignore_errors=True)  # noop leaves none
        return step

    def _stages(self) -> dict[tuple[int, int], Any]:
        """Return the stages that the session has run."""
        context = self.spark.sparkContext
        jvm, gateway, scala = context._jvm, context._gateway, context._jsc.sc()
        assert jvm is not None and gateway is not None  # noqa: PT018
        scala.listenerBus().waitUntilEmpty()  # figures arrive a little after their stage
        no_quantiles = gateway.new_array(jvm.double, 0)
        found = scala.statusStore().stageList(None, False, False, no_quantiles, jvm.java.util.ArrayList())
        stages = [found.apply(index) for index in range(found.size())]
        return {(stage.stageId(), stage.attemptId()): stage for stage in stages}


def _rss(name: str) -> int:
    status = Path("/proc/self/status")
    found = re.search(rf"{name}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found.group(1)) * 1024 if found else 0


def _reset_peak_rss() -> int:
    """Set VmHWM back to the memory in use, and return that."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _rss("VmRSS")


def write_census(spark: SparkSession, folder: Path, num_rows: int) -> tuple[str, str]:
    """Return the paths of typed Parquet with `num_rows` rows and with a tenth of them."""
    contract = contracts.load(str(ROOT / "schemas" / "census.json"))
    content = [column.name for column in contract.columns if column.name != contract.label]
    schema = ", ".join(f"{column.name} {column.type}" for column in contract.columns)
    paths = []
    for size in (num_rows, num_rows // 10):
        raw, typed = folder / f"raw{size}", str(folder / f"typed{size}")
        census_like.write(raw, num_train=size, num_test=0, bad_rows=0)
        data = str(raw / "adult" / "adult.data")
        lines = spark.read.csv(data, schema, ignoreLeadingWhiteSpace=True, nullValue="?", mode="FAILFAST")
        lines.select("*", split.row_id(content)).repartition(_NUM_FILES).write.parquet(typed)
        shutil.rmtree(raw)
        paths.append(typed)
    return paths[0], paths[1]


def transformed(rows: DataFrame, encoder: Encoder, task: Task) -> DataFrame:
    prepared, outputs = encoded_sql(rows, encoder)
    return prepared.selectExpr(*named(outputs), f"{_label_sql(task)} AS label", "row_id")


def transformed_by_arrow(rows: DataFrame, encoder: Encoder) -> DataFrame:
    """Return what `transformed` does, made by Python workers."""
    dense, ids = encoder.specs
    form, kept = encoder.to_json(), ("label", "row_id")
    types = [*(f"{name} float" for name in dense.columns), *(f"{name} int" for name in ids.columns)]

    def encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ready = ArrowEncoder(Encoder.from_json(form))
        for batch in batches:
            tensors = ready.transform(pa.Table.from_batches([batch]))
            columns = [*tensors["dense"].T, *tensors["ids"].astype(np.int32).T]
            arrays = [*map(pa.array, columns), *map(batch.column, kept)]
            yield pa.RecordBatch.from_arrays(arrays, [*dense.columns, *ids.columns, *kept])

    labelled = rows.select(*encoder.inputs, label(INCOME), "row_id")
    return labelled.mapInArrow(encode, ", ".join([*types, "label float", "row_id bigint"]))


def ml_pipeline() -> Pipeline:
    doubles = [f"CAST({name} AS DOUBLE) AS n_{name}" for name in NUMBERS]
    doubles += [f"log1p(CAST({name} AS DOUBLE)) AS n_{name}" for name in AMOUNTS]
    numbers, ids = [f"n_{name}" for name in (*NUMBERS, *AMOUNTS)], [f"i_{name}" for name in TEXTS]
    casts = SQLTransformer(statement=f"SELECT {', '.join([*TEXTS, 'income', 'row_id', *doubles])} FROM __THIS__")
    indexer = StringIndexer(inputCols=list(TEXTS), outputCols=ids, handleInvalid="keep", stringOrderType="alphabetAsc")
    vector = VectorAssembler(inputCols=numbers, outputCol="vector")
    scaler = StandardScaler(inputCol="vector", outputCol="scaled", withMean=True)
    return Pipeline(stages=[casts, Imputer(inputCols=numbers, outputCols=numbers), vector, scaler, indexer])


def ml_outputs(rows: DataFrame) -> DataFrame:
    """Return a pipeline's outputs as the columns that `transformed` gives."""
    flat = rows.withColumn("floats", vector_to_array(F.col("scaled"), "float32"))
    floats = (F.col("floats")[place].alias(name) for place, name in enumerate([*NUMBERS, *AMOUNTS]))
    ids = (F.col(f"i_{name}").cast("int").alias(name) for name in TEXTS)
    return flat.select(*floats, *ids, label(INCOME), "row_id")


def run_rounds(bench: Bench, whole: str, tenth: str, rounds: int) -> tuple[Encoder, dict[str, list[Steps]]]:
    """Return the encoder of all rows, and the figures of each case, which take turns."""
    read = bench.spark.read.parquet
    encoder = fit(read(whole), CENSUS, INCOME, pipeline="census")
    raw = (*NUMBERS, *AMOUNTS, *TEXTS, "income", "row_id")

    def ours(path: str) -> Steps:
        with bench.measuring() as fitting:
            fitted = fit(read(path), CENSUS, INCOME, pipeline="census")
        return {"fit": fitting, "transform": bench.write(lambda: transformed(read(path), fitted, INCOME))}

    def pyspark_ml() -> Steps:
        with bench.measuring() as fitting:
            model = ml_pipeline().fit(read(whole))
        write = bench.write(lambda: ml_outputs(model.transform(read(whole))))
        return {"fit": fitting, "transform": write}

    cases: list[tuple[str, Callable[[], Steps]]] = [
        ("scan", lambda: {"transform": bench.write(lambda: read(whole).select(*raw))}),
        ("ours", lambda: ours(whole)),
        ("pyspark.ml", pyspark_ml),
        ("mapInArrow", lambda: {"transform": bench.write(lambda: transformed_by_arrow(read(whole), encoder))}),
        ("tenth", lambda: ours(tenth)),
    ]
    runs: dict[str, list[Steps]] = {name: [] for name, _ in cases}
    for number in range(rounds + 1):
        turn = number % len(cases)
        for name, case in [*cases[turn:], *cases[:turn]]:
            steps = case()
            if number:
                runs[name].append(steps)
            told = ", ".join(f"{what} {step.seconds:.2f} s ({step.cpu_seconds:.2f})" for what, step in steps.items())
            print(f"{f'round {number}' if number else 'warm-up'}: {name:<12}{told}", flush=True)
    return encoder, runs


def wide(bench: Bench) -> dict[str, Any]:
    """Return figures of 200 columns."""
    _wide_rows.write(bench.folder, 100)
    settings = declared(*_wide_rows.inputs(100))
    rows = bench.spark.read.parquet(str(bench.folder / _wide_rows.FILE))
    with bench.measuring() as fitting:
        encoder = fit(rows, settings, RICH, pipeline="wide")
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        transformed(rows, encoder, RICH)._jdf.queryExecution().executedPlan()
        seconds.append(time.monotonic() - started)
    started = time.monotonic()
    transformed(rows, encoder, RICH).limit(100).toArrow()
    first_rows = time.monotonic() - started
    with bench.measuring() as tiny:
        fit(rows.limit(100), settings, RICH, pipeline="wide")
    return {
        "wide_planning_s": round(statistics.median(seconds), 2),
        "wide_planning_first_s": round(seconds[0], 2),
        "wide_first_rows_s": round(first_rows, 2),
        "wide_passes": round(fitting.rows_read / _wide_rows.NUM_ROWS, 3),
        "wide_outputs": len(encoder.outputs),
        "wide_fit_tiny_s": round(tiny.seconds, 2),
        "wide_fit_s": round(fitting.seconds, 2),
        "wide_transform_s": round(bench.write(lambda: transformed(rows, encoder, RICH)).seconds, 2),
    }


def many_values(bench: Bench, num_rows: int) -> dict[str, Any]:
    """Return figures of a text with more values than the driver is to hold."""
    num_values = min(1_000_000, num_rows // 4)
    town = f"concat('value ', pmod(xxhash64(id), {num_values})) AS town"
    rows = bench.spark.range(num_rows).selectExpr(town, "IF(id % 3 = 0, 'yes', 'no') AS rich", "id AS row_id")
    index = {"kind": "index", "columns": ["town"], "max_values": num_values // 10}
    collected, collect = [0], type(rows).collect

    def counted(frame: DataFrame) -> list[Any]:
        found = collect(frame)
        collected[0] += len(found)
        return found

    with mock.patch.object(type(rows), "collect", counted), bench.measuring() as fitting:
        fit(rows, declared(index), RICH, pipeline="many")
    return {
        "many_values": num_values,
        "many_limit": num_values // 10,
        "many_collected": collected[0],
        "many_result_mb": round(fitting.result_bytes / 2**20, 1),
        "many_rss_growth_mb": round(fitting.rss_growth_bytes / 2**20, 1),
        "many_fit_s": round(fitting.seconds, 2),
    }


def in_memory(encoder: Encoder, path: str) -> dict[str, float]:
    """Return microseconds per row of `ArrowEncoder` and of scikit-learn, in turns."""
    rows = parquet.read_table(path, columns=list(encoder.inputs)).slice(0, _BATCH_ROWS)
    frame, ours, one_row = rows.to_pandas(), ArrowEncoder(encoder), rows.slice(17, 1)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    logs = make_pipeline(FunctionTransformer(np.log1p), Standardize())
    scaled = ("scaled", Standardize(), list(NUMBERS))
    theirs = ColumnTransformer([scaled, ("logs", logs, list(AMOUNTS)), ("ids", ordinal, list(TEXTS))]).fit(frame)
    one_line = frame.iloc[17:18]
    calls: dict[str, tuple[Callable[[], object], int, int]] = {
        "one_row_us": (lambda: ours.transform(one_row), 200, 1),
        "batch_row_us": (lambda: ours.transform(rows), 5, len(frame)),
        "sklearn_one_row_us": (lambda: theirs.transform(one_line), 50, 1),
        "sklearn_batch_row_us": (lambda: theirs.transform(frame), 5, len(frame)),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(6):
        for name, (call, times, num_rows) in calls.items():
            started = time.perf_counter()
            for _ in range(times):
                call()
            found[name].append((time.perf_counter() - started) / times / num_rows * 1e6)
    return {name: round(statistics.median(values[1:]), 3) for name, values in found.items()}


def spreads(runs: Mapping[str, Sequence[Steps]]) -> dict[str, dict[str, float]]:
    """Return min, median and max of each case's seconds, processor seconds and memory."""
    values: dict[str, list[float]] = {}
    for case, rounds in runs.items():
        for what in rounds[0]:
            values[f"{case} {what}"] = [steps[what].seconds for steps in rounds]
            values[f"{case} {what} cpu"] = [steps[what].cpu_seconds for steps in rounds]
        values[f"{case} all"] = [sum(step.seconds for step in steps.values()) for steps in rounds]
        values[f"{case} all cpu"] = [sum(step.cpu_seconds for step in steps.values()) for steps in rounds]
        values[f"{case} RSS, MiB"] = [max(step.rss_bytes for step in steps.values()) / 2**20 for steps in rounds]
    found = {name: (min(each), statistics.median(each), max(each)) for name, each in values.items()}
    return {name: dict(zip(("min", "median", "max"), each, strict=True)) for name, each in found.items()}


def ratios(runs: Mapping[str, Sequence[Steps]], table: Mapping[str, Mapping[str, float]], rows: int) -> dict[str, Any]:
    def ratio(of: str, to: str) -> float:
        return round(table[of]["median"] / max(table[to]["median"], 1e-9), 3)

    return {
        "transform_over_scan": ratio("ours transform", "scan transform"),
        "over_pyspark_ml": ratio("pyspark.ml all", "ours all"),
        "over_map_in_arrow": ratio("mapInArrow transform", "ours transform"),
        "passes": round(statistics.median(steps["fit"].rows_read / rows for steps in runs["ours"]), 3),
        "scale_10x": ratio("ours all", "tenth all"),
        "driver_rss_ratio": ratio("ours RSS, MiB", "tenth RSS, MiB"),
        "transform_over_scan_cpu": ratio("ours transform cpu", "scan transform cpu"),
        "over_pyspark_ml_cpu": ratio("pyspark.ml all cpu", "ours all cpu"),
        "scale_10x_cpu": ratio("ours all cpu", "tenth all cpu"),
        "files_written": {case: rounds[-1]["transform"].num_files for case, rounds in runs.items()},
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="100,000 rows, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows; 4,000,000 unless --quick.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Counted runs of each case; 3 unless --quick.")] = None,
    sink: Annotated[
        str, typer.Option(help="What tables are written as: delta, parquet, or noop: computed only.")
    ] = "delta",
) -> None:
    """Measure what features cost."""
    started = time.monotonic()
    num_rows, num_rounds = rows or (100_000 if quick else 4_000_000), rounds or (1 if quick else 3)
    os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf"))
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # Workers of mapInArrow find the sources where this process found them.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="mlspark-features-") as name:
        os.environ["SPARK_LOCAL_DIRS"] = name
        spark = session.start("features")
        spark.sparkContext.setLogLevel("ERROR")
        try:
            bench = Bench(spark, Path(name), sink)
            whole, tenth = write_census(spark, Path(name), num_rows)
            print(f"{num_rows:,} rows are there; seconds (processor seconds of the tasks)", flush=True)
            encoder, runs = run_rounds(bench, whole, tenth, num_rounds)
            table = spreads(runs)
            figures = ratios(runs, table, num_rows) | in_memory(encoder, whole)
            figures |= wide(bench) | many_values(bench, num_rows)
        finally:
            spark.stop()
    figures |= {"rows": num_rows, "rounds": num_rounds, "sink": sink, "seconds": round(time.monotonic() - started, 1)}
    print(f"\n{'':<28}{'min':>10}{'median':>10}{'max':>10}")
    for what, values in table.items():
        print(f"{what:<28}" + "".join(f"{value:>10.2f}" for value in values.values()))
    print()
    tell(figures, json_file, {"spread": table})


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
