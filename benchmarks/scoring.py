"""How fast batches are scored, beside what people use for it.

    python benchmarks/scoring.py [--quick] [--json FILE] [--rows N] [--rounds N] [--data FOLDER] [--batch-size N]

Generated census rows (14 columns and the label, typed Parquet; a tenth of them drawn, the others those with other weights),
the features and the network of conf/census.yaml with random weights, one session (local[2] and 2 GB). Each case reads the
raw rows and writes the same columns to Parquet: the raw row, row_id, its place in the source, probability and prediction,
and which version they are of. They take turns in each round, every other round backwards, after one over a tenth of the
rows that is not counted. None of them holds rows against a contract but MLflow's, whose model does so in Python.

    ours               `batch.scored`, as jobs/score.py writes it, the network run by torch (eager)
    optimised          the same of the version whose network ONNX Runtime runs
    predict_batch_udf  pyspark's: the same encoded columns, the network called by hand, the best of four batch sizes
    bare               mapInArrow with the network called by hand, as little around it as can be
    spark_udf          MLflow's, of the same version: raw columns in, checked and encoded in Python
    floor              no model: the same rows read and written with constants for predictions, which all others do, too
    tenth              ours on a tenth of the rows

Ratios are those of medians of seconds; `ranges` has the least and the greatest of single rounds. `over_..._cpu` are
the same of processor seconds, of Java and of Python's workers together: what else the machine does disturbs them less.

    over_predict_batch_udf  predict_batch_udf / ours. Aim: at least 2
    over_spark_udf          spark_udf / ours. Aim: at least 5
    over_bare               bare / ours. Aim: at least 1
    optimised_over_ours     ours / optimised
    growth_10x              ours / tenth. Aim: at most 10.5
    ours_over_floor         ours / floor
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import _checkout  # noqa: F401
import mlflow
import numpy as np
import psutil
import pyarrow as pa
import torch
import typer
from _figures import tell
from numpy.typing import NDArray
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructType

from mlspark import session
from mlspark.contracts import contract as contracts
from mlspark.contracts.own_columns import ROW_NUMBER, SOURCE_FILE
from mlspark.datasets import census_like
from mlspark.engines import eager, onnx_engine, onnx_graph
from mlspark.features import split
from mlspark.features.encode_spark import encoded
from mlspark.features.fit import fit
from mlspark.features.tensors import Tensors
from mlspark.models.tabular import TabularSettings
from mlspark.registry import signature
from mlspark.registry.package import Package
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import batch
from mlspark.settings import loading
from mlspark.tasks.kinds import from_settings

ROOT = Path(__file__).resolve().parents[1]
_NUM_FILES = 8
_TENTH = 10
_BATCH_SIZES = (512, 1024, 4096, 16_384)
_PREDICTIONS = "probability double, prediction string"


@dataclass(frozen=True)
class Bench:
    """The session, the version, and its source as raw Parquet: all rows and a tenth."""

    spark: SparkSession
    folder: Path
    package: Package
    rows: Mapping[str, str]

    def source(self, size: str) -> DataFrame:
        return self.spark.read.parquet(self.rows[size])

    def write(self, scored: DataFrame) -> "Took":
        """Return what computing and writing took."""
        started, used = time.monotonic(), _processor_seconds()
        scored.write.format("parquet").mode("overwrite").save(str(self.folder / "scores"))
        return Took(time.monotonic() - started, _processor_seconds() - used)


@dataclass(frozen=True)
class Took:
    """Seconds, by the clock and of processors."""

    wall: float
    processor: float


def _processor_seconds() -> float:
    """Return what Java and Python's workers, those that ended too, have used since they were started."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
            if "java" not in process.name():
                total += times.children_user + times.children_system
    return total


def write_rows(spark: SparkSession, folder: Path, num_rows: int) -> dict[str, str]:
    """Return the paths of typed Parquet with all rows and with a tenth of them; those that are there already are taken."""
    paths = {name: str(folder / f"{name}.parquet") for name in ("whole", "tenth")}
    if all(Path(path, "_SUCCESS").exists() for path in paths.values()):
        assert spark.read.parquet(paths["whole"]).count() == num_rows, f"{folder} has another number of rows"
        return paths
    contract = contracts.load(str(ROOT / "schemas" / "census.json"))
    schema = ", ".join(f"{column.name} {column.type}" for column in contract.columns)
    census_like.write(folder, num_train=num_rows // _TENTH, num_test=0, bad_rows=0)
    lines = spark.read.csv(str(folder / "adult" / "adult.data"), schema, ignoreLeadingWhiteSpace=True, nullValue="?")
    # Other rows, as Python draws millions of them slower than Spark scores them.
    copies = lines.withColumn("copy", F.explode(F.sequence(F.lit(0), F.lit(_TENTH - 1))))
    copies = copies.withColumn("fnlwgt", F.col("fnlwgt") + F.col("copy")).drop("copy")
    for name, rows in (("whole", copies), ("tenth", lines)):
        placed = rows.withColumns({SOURCE_FILE: F.lit("adult.data"), ROW_NUMBER: F.monotonically_increasing_id()})
        placed.repartition(_NUM_FILES).write.mode("overwrite").parquet(paths[name])
    return paths


def version(spark: SparkSession, path: str) -> Package:
    """Return a version whose features are fitted on the rows, with random weights."""
    settings = loading.load([str(ROOT / "conf" / "census.yaml")], [f"contract={ROOT / 'schemas' / 'census.json'}"])
    contract = contracts.load(str(ROOT / "schemas" / "census.json"))
    content = [column.name for column in contract.columns if column.name != contract.label]
    rows = spark.read.parquet(path).withColumn("row_id", split.row_id(content))
    task = from_settings({"kind": "binary", "target": "income", "classes": ["<=50K", ">50K"], "threshold": 0.5})
    encoder = fit(rows, settings.features, task, pipeline="census")
    tensors, model = encoder.tensors(task), TabularSettings()
    torch.manual_seed(0)
    weights = model.build(tensors, 1).state_dict()
    about = {"run_id": "", "table": "", "table_version": 0, "metrics": {}, "train_seconds": 0.0, "libraries": {}}
    return Package.pack(
        model=eager.pack(model, tensors, 1, weights), encoder=encoder, contract=contract, task=task, provenance=about
    )


def ours(bench: Bench, package: Package, size: str) -> DataFrame:
    model = ModelVersion("census", 1, package)
    return batch.scored(bench.source(size), model, score_id="bench", source_version="bench")


def _inputs(bench: Bench, size: str) -> tuple[DataFrame, Tensors]:
    """Return the columns that scores have, and the encoded ones as arrays, as all but MLflow get them."""
    contract, encoder, task = bench.package.contract, bench.package.encoder, bench.package.task
    names = [column.name for column in contract.columns if column.name != contract.label]
    tensors = encoder.tensors(task)
    prepared, columns = encoded(bench.source(size), encoder)
    by_name = dict(zip((output.name for output in encoder.outputs), columns, strict=True))
    arrays = [F.array(*(by_name[name] for name in spec.columns)).alias(f"_{spec.name}") for spec in tensors.specs]
    return prepared.select(*_written(names, contract.label), *arrays), tensors


def _written(names: list[str], label: str | None) -> list[Column]:
    """Return the columns of raw rows that scores have."""
    return [
        *map(F.col, names), F.col(label or ""), split.row_id(names),
        F.col(SOURCE_FILE).alias("source_file"), F.col(ROW_NUMBER).alias("row_number"),
    ]  # fmt: skip


def _named(scores: DataFrame) -> DataFrame:
    literals = {"model_name": "census", "source_version": "bench", "score_id": "bench"}
    return scores.withColumns({name: F.lit(value) for name, value in literals.items()} | {"model_version": F.lit(1)})


def by_predict_batch_udf(bench: Bench, size: str, batch_size: int) -> DataFrame:
    files, (rows, tensors) = dict(bench.package.files), _inputs(bench, size)

    def make() -> Callable[..., NDArray[Any]]:
        torch.set_num_threads(1)
        network = eager.load(files).network

        def predict(dense: NDArray[Any], ids: NDArray[Any]) -> NDArray[Any]:
            with torch.inference_mode():
                logits = network(dense=torch.from_numpy(dense.copy()), ids=torch.from_numpy(ids.astype(np.int64)))
                return torch.sigmoid(logits.double())[:, 0].numpy()

        return predict

    shapes = [[len(spec.columns)] for spec in tensors.specs]
    udf = predict_batch_udf(make, return_type=DoubleType(), batch_size=batch_size, input_tensor_shapes=shapes)
    scores = rows.withColumn("probability", udf(*(F.col(f"_{spec.name}") for spec in tensors.specs)))
    prediction = F.when(F.col("probability") >= 0.5, ">50K").otherwise("<=50K")
    return _named(scores.withColumn("prediction", prediction).drop("_dense", "_ids"))


def by_hand(bench: Bench, size: str) -> DataFrame:
    files, (rows, tensors) = dict(bench.package.files), _inputs(bench, size)
    widths = {spec.name: len(spec.columns) for spec in tensors.specs}

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torch.set_num_threads(1)
        network = eager.load(files).network
        for each in batches:
            flat = {name: each.column(f"_{name}").flatten().to_numpy(zero_copy_only=False) for name in widths}
            values = {name: value.reshape(-1, widths[name]) for name, value in flat.items()}
            with torch.inference_mode():
                logits = network(
                    dense=torch.tensor(values["dense"]), ids=torch.from_numpy(values["ids"].astype(np.int64))
                )
                probability = torch.sigmoid(logits.double())[:, 0].numpy()
            prediction = np.where(probability >= 0.5, ">50K", "<=50K")
            kept = each.drop_columns(["_dense", "_ids"])
            kept = kept.append_column("probability", pa.array(probability))
            yield kept.append_column("prediction", pa.array(prediction))

    num_kept = len(rows.columns) - 2
    predictions = StructType.fromDDL(_PREDICTIONS).fields
    return _named(rows.mapInArrow(score, StructType([*rows.schema.fields[:num_kept], *predictions])))


def by_spark_udf(bench: Bench, size: str, model: str) -> DataFrame:
    contract = bench.package.contract
    names = [column.name for column in contract.columns if column.name != contract.label]
    udf = mlflow.pyfunc.spark_udf(bench.spark, model, result_type=_PREDICTIONS, env_manager="local")
    rows = bench.source(size)
    scores = rows.select(*_written(names, contract.label), udf(F.struct(*names)).alias("_scores"))
    return _named(scores.select("*", "_scores.*").drop("_scores"))


def without_model(bench: Bench, size: str) -> DataFrame:
    contract = bench.package.contract
    names = [column.name for column in contract.columns if column.name != contract.label]
    constants = F.lit(0.5).alias("probability"), F.lit(">50K").alias("prediction")
    return _named(bench.source(size).select(*_written(names, contract.label), *constants))


def saved(package: Package, folder: Path) -> str:
    """Return the folder of an MLflow model of the version."""
    package.save(folder / "package")
    place = str(folder / "model")
    mlflow.pyfunc.save_model(
        place, loader_module="mlspark.scoring.mlflow_model", data_path=str(folder / "package"),
        signature=signature.of(package), pip_requirements=package.requirements,
    )  # fmt: skip
    return place


def best_size(bench: Bench) -> int:
    """Return the batch size by which predict_batch_udf is the fastest, over a tenth of the rows, the second time."""
    for _ in range(2):
        times = {size: bench.write(by_predict_batch_udf(bench, "tenth", size)) for size in _BATCH_SIZES}
        print(
            "predict_batch_udf: " + ", ".join(f"{size:,}: {each.wall:.1f} s" for size, each in times.items()),
            flush=True,
        )
    return min(times, key=lambda size: times[size].processor)


Case = Callable[[str], DataFrame]
"""What a case scores of rows of this size."""


def all_cases(bench: Bench, batch_size: int | None) -> tuple[dict[str, Case], int]:
    """Return the cases, and the batch size of pyspark's, the best unless it is given."""
    network = eager.load(bench.package.files)
    optimised = bench.package.with_engine(onnx_engine.pack(onnx_graph.export(network)), provenance={})
    model = saved(bench.package, bench.folder / "mlflow")
    size_of_batch = batch_size or best_size(bench)
    cases: dict[str, Case] = {
        "ours": lambda size: ours(bench, bench.package, size),
        "optimised": lambda size: ours(bench, optimised, size),
        "predict_batch_udf": lambda size: by_predict_batch_udf(bench, size, size_of_batch),
        "bare": lambda size: by_hand(bench, size),
        "spark_udf": lambda size: by_spark_udf(bench, size, model),
        "floor": lambda size: without_model(bench, size),
    }
    return cases, size_of_batch


def most_different(cases: Mapping[str, Case]) -> float:
    """Return the greatest difference of a probability from ours, of some rows; the columns must be the same."""
    columns = {name: sorted(case("tenth").columns) for name, case in cases.items()}
    assert all(each == columns["ours"] for each in columns.values()), columns
    some = {
        name: {row["row_number"]: row["probability"] for row in case("tenth").where("row_number % 101 = 0").collect()}
        for name, case in cases.items()
        if name != "floor"
    }
    assert all(each.keys() == some["ours"].keys() for each in some.values())
    return max(abs(value - some["ours"][number]) for each in some.values() for number, value in each.items())


def run_rounds(bench: Bench, cases: Mapping[str, Case], rounds: int) -> list[dict[str, Took]]:
    """Return what each case took in each round, in which they take turns; `tenth` is ours of a tenth of the rows."""
    turns = [(name, name, "whole") for name in cases] + [("tenth", "ours", "tenth")]
    for name, case in cases.items():
        print(f"warm-up: {name:<20}{bench.write(case('tenth')).wall:.2f} s", flush=True)
    took: list[dict[str, Took]] = []
    for number in range(rounds):
        took.append({})
        for name, case_name, size in turns[:: -1 if number % 2 else 1]:
            took[-1][name] = each = bench.write(cases[case_name](size))
            print(f"round {number + 1}: {name:<20}{each.wall:.2f} s, processors {each.processor:.2f} s", flush=True)
    return took


def ratios_of(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the ratios of the cases' seconds."""
    return {
        "over_predict_batch_udf": seconds["predict_batch_udf"] / seconds["ours"],
        "over_spark_udf": seconds["spark_udf"] / seconds["ours"],
        "over_bare": seconds["bare"] / seconds["ours"],
        "optimised_over_ours": seconds["ours"] / seconds["optimised"],
        "growth_10x": seconds["ours"] / seconds["tenth"],
        "ours_over_floor": seconds["ours"] / seconds["floor"],
    }


def figures_of(took: list[dict[str, Took]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the ratios of medians, and what stands in the file alone: ranges of rounds, seconds of each."""
    wall = [{name: each.wall for name, each in every.items()} for every in took]
    processor = [{name: each.processor for name, each in every.items()} for every in took]
    figures, ranges = {}, {}
    for suffix, rounds in (("", wall), ("_cpu", processor)):
        medians = {name: statistics.median(every[name] for every in rounds) for name in rounds[0]}
        single = [ratios_of(every) for every in rounds]
        for name, ratio in ratios_of(medians).items():
            figures[name + suffix] = ratio
            ranges[name + suffix] = [min(each[name] for each in single), max(each[name] for each in single)]
    return figures, {"ranges": ranges, "case_seconds": wall, "case_processor_seconds": processor}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="40,000 rows, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows; 2,000,000 unless --quick.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Counted runs of each case; 3 unless --quick.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder that keeps the rows for further runs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Of predict_batch_udf; the best of four unless given.")] = None,
) -> None:
    """Measure what scoring costs."""
    started = time.monotonic()
    num_rows, num_rounds = rows or (40_000 if quick else 2_000_000), rounds or (1 if quick else 3)
    os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf"))
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="mlspark-scoring-") as name:
        os.environ["SPARK_LOCAL_DIRS"] = name
        spark = session.start("scoring")
        spark.sparkContext.setLogLevel("ERROR")
        try:
            paths = write_rows(spark, data or Path(name), num_rows)
            bench = Bench(spark, Path(name), version(spark, paths["tenth"]), paths)
            print(f"{num_rows:,} rows are there", flush=True)
            with batch.sending(spark):
                cases, size = all_cases(bench, batch_size)
                different = most_different(cases)
                took = run_rounds(bench, cases, num_rounds)
        finally:
            spark.stop()
    ratios, details = figures_of(took)
    about = {
        "rows": num_rows,
        "rounds": num_rounds,
        "batch_size": size,
        "most_different": different,
        "seconds": round(time.monotonic() - started, 1),
    }
    tell({**ratios, **about}, json_file, details)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
