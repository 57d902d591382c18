"""How fast batches are scored, beside what people use for it.

    python benchmarks/scoring.py [--quick] [--json FILE] [--rows N] [--rounds N]

Generated census rows (14 columns and the label, typed Parquet), the features and the network of conf/census.yaml with random
weights, one session (local[2] and 2 GB). Each case reads the raw rows and writes the same columns to Parquet: the raw row,
row_id, its place in the source, probability and prediction, and which version they are of. They take turns in each round,
every other round backwards, after one that is not counted.

    ours               `batch.scored`, as jobs/score.py writes it, the network run by torch (eager)
    optimised          the same of the version whose network ONNX Runtime runs
    predict_batch_udf  pyspark's: the same encoded columns, the network called by hand, the best of four batch sizes
    bare               mapInArrow with the network called by hand, as little around it as can be
    spark_udf          MLflow's, of the same version: raw columns in, checked and encoded in Python
    tenth              ours on a tenth of the rows

Ratios are those of medians of seconds.

    over_predict_batch_udf  predict_batch_udf / ours. Aim: at least 2
    over_spark_udf          spark_udf / ours. Aim: at least 5
    over_bare               bare / ours. Aim: at least 1
    optimised_over_ours     ours / optimised
    growth_10x              ours / tenth. Aim: at most 10.5
"""

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
_BATCH_SIZES = (1024, 4096, 16_384, 65_536)
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

    def write(self, scored: DataFrame) -> float:
        """Return the seconds that computing and writing took."""
        started = time.monotonic()
        scored.write.format("parquet").mode("overwrite").save(str(self.folder / "scores"))
        return time.monotonic() - started


def write_rows(spark: SparkSession, folder: Path, num_rows: int) -> dict[str, str]:
    """Return the paths of typed Parquet with all rows and with a tenth of them."""
    contract = contracts.load(str(ROOT / "schemas" / "census.json"))
    schema = ", ".join(f"{column.name} {column.type}" for column in contract.columns)
    paths = {}
    for name, size in (("whole", num_rows), ("tenth", num_rows // 10)):
        census_like.write(folder / name, num_train=size, num_test=0, bad_rows=0)
        lines = spark.read.csv(
            str(folder / name / "adult" / "adult.data"), schema, ignoreLeadingWhiteSpace=True, nullValue="?"
        )
        placed = lines.withColumns({SOURCE_FILE: F.lit("adult.data"), ROW_NUMBER: F.monotonically_increasing_id()})
        paths[name] = str(folder / f"{name}.parquet")
        placed.repartition(_NUM_FILES).write.parquet(paths[name])
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


def _inputs(bench: Bench) -> tuple[DataFrame, Tensors]:
    """Return the columns that scores have, and the encoded ones as arrays, as all but MLflow get them."""
    contract, encoder, task = bench.package.contract, bench.package.encoder, bench.package.task
    names = [column.name for column in contract.columns if column.name != contract.label]
    tensors = encoder.tensors(task)
    prepared, columns = encoded(bench.source("whole"), encoder)
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


def by_predict_batch_udf(bench: Bench, batch_size: int) -> DataFrame:
    files, (rows, tensors) = dict(bench.package.files), _inputs(bench)

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


def by_hand(bench: Bench) -> DataFrame:
    files, (rows, tensors) = dict(bench.package.files), _inputs(bench)
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


def by_spark_udf(bench: Bench, model: str) -> DataFrame:
    contract = bench.package.contract
    names = [column.name for column in contract.columns if column.name != contract.label]
    udf = mlflow.pyfunc.spark_udf(bench.spark, model, result_type=_PREDICTIONS, env_manager="local")
    rows = bench.source("whole")
    scores = rows.select(*_written(names, contract.label), udf(F.struct(*names)).alias("_scores"))
    return _named(scores.select("*", "_scores.*").drop("_scores"))


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
    """Return the batch size by which predict_batch_udf is the fastest."""
    seconds = {size: bench.write(by_predict_batch_udf(bench, size)) for size in _BATCH_SIZES}
    print("predict_batch_udf: " + ", ".join(f"{size:,}: {each:.1f} s" for size, each in seconds.items()), flush=True)
    return min(seconds, key=seconds.__getitem__)


def all_cases(bench: Bench) -> tuple[dict[str, Callable[[], DataFrame]], int]:
    """Return the cases, and the best batch size of pyspark's."""
    network = eager.load(bench.package.files)
    optimised = bench.package.with_engine(onnx_engine.pack(onnx_graph.export(network)), provenance={})
    model = saved(bench.package, bench.folder / "mlflow")
    size = best_size(bench)
    cases: dict[str, Callable[[], DataFrame]] = {
        "ours": lambda: ours(bench, bench.package, "whole"),
        "optimised": lambda: ours(bench, optimised, "whole"),
        "predict_batch_udf": lambda: by_predict_batch_udf(bench, size),
        "bare": lambda: by_hand(bench),
        "spark_udf": lambda: by_spark_udf(bench, model),
        "tenth": lambda: ours(bench, bench.package, "tenth"),
    }
    return cases, size


def most_different(cases: Mapping[str, Callable[[], DataFrame]]) -> float:
    """Return the greatest difference of a probability from ours, of some rows; the columns must be the same."""
    columns = {name: sorted(case().columns) for name, case in cases.items()}
    assert all(each == columns["ours"] for each in columns.values()), columns
    some = {
        name: {row["row_number"]: row["probability"] for row in case().where("row_number % 101 = 0").collect()}
        for name, case in cases.items()
        if name != "tenth"
    }
    return max(abs(value - some["ours"][number]) for each in some.values() for number, value in each.items())


def run_rounds(bench: Bench, cases: Mapping[str, Callable[[], DataFrame]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each case, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in list(cases.items())[:: -1 if number % 2 else 1]:
            took = bench.write(case())
            if number:
                seconds[name].append(took)
            print(f"{f'round {number}' if number else 'warm-up'}: {name:<20}{took:.2f} s", flush=True)
    return seconds


def main(
    quick: Annotated[bool, typer.Option("--quick", help="40,000 rows, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows; 2,000,000 unless --quick.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Counted runs of each case; 3 unless --quick.")] = None,
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
            paths = write_rows(spark, Path(name), num_rows)
            bench = Bench(spark, Path(name), version(spark, paths["tenth"]), paths)
            print(f"{num_rows:,} rows are there", flush=True)
            cases, size = all_cases(bench)
            different = most_different(cases)
            seconds = run_rounds(bench, cases, num_rounds)
        finally:
            spark.stop()
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ratios = {
        "over_predict_batch_udf": medians["predict_batch_udf"] / medians["ours"],
        "over_spark_udf": medians["spark_udf"] / medians["ours"],
        "over_bare": medians["bare"] / medians["ours"],
        "optimised_over_ours": medians["ours"] / medians["optimised"],
        "growth_10x": medians["ours"] / medians["tenth"],
    }
    about = {
        "rows": num_rows,
        "rounds": num_rounds,
        "batch_size": size,
        "most_different": different,
        "seconds": round(time.monotonic() - started, 1),
    }
    tell({**ratios, **about}, json_file, {"case_seconds": seconds})


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
