"""A wide encoder, fitted or put to use in a process of its own, by whichever mlspark is on the path: see wide_rows.py.

python benchmarks/_wide_rows.py FOLDER NUM_COLUMNS [--fit]
"""

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from pyarrow import parquet
from pyspark.sql import DataFrame, SparkSession

from mlspark import session

NUM_ROWS = 20_000
FILE = "wide.parquet"
_FIRST_ROWS = 100


def write(folder: Path, num_columns: int) -> None:
    """Write rows of so many numbers, and of so many texts of 5, 6 and so on values."""
    random = np.random.default_rng(0)
    rich = np.where(random.random(NUM_ROWS) < 0.3, "yes", "no")
    numbers = {f"n{place}": random.lognormal(3, 1, NUM_ROWS) for place in range(num_columns)}
    texts = {f"t{place}": random.integers(0, 5 + place, NUM_ROWS).astype(str) for place in range(num_columns)}
    rows = pa.table({**numbers, **texts, "rich": rich, "row_id": np.arange(NUM_ROWS)})
    parquet.write_table(rows, folder / FILE)


def inputs(num_columns: int) -> list[dict[str, Any]]:
    """Return the section `features.inputs`: all that a number and a category can become."""
    numbers, texts = ([f"{letter}{place}" for place in range(num_columns)] for letter in "nt")
    kinds: list[dict[str, Any]] = [
        {"kind": "number"},
        {"kind": "number", "log1p": True, "impute": "median", "indicator": True},
        {"kind": "number", "scale": "robust"},
        {"kind": "number", "scale": "quantile", "knots": 20},
        {"kind": "buckets", "quantiles": 10},
    ]
    categories = ("index", "one_hot", "target", "frequency")
    of_numbers = [{**kind, "columns": numbers[place :: len(kinds)]} for place, kind in enumerate(kinds)]
    return [
        *of_numbers,
        *({"columns": texts[place :: len(categories)], "kind": kind} for place, kind in enumerate(categories)),
    ]


class Early:
    """What mlspark of before the kinds had a file each does with these rows."""

    def __init__(self, num_columns: int) -> None:
        from mlspark.feature_settings import FeaturesSettings

        rich = {"column": "rich", "positive": ["yes"], "negative": ["no"]}
        self.settings = FeaturesSettings.model_validate_json(json.dumps({"label": rich, "inputs": inputs(num_columns)}))

    def start(self) -> SparkSession:
        return session.start("wide")

    def fit(self, rows: DataFrame) -> Any:
        from mlspark.features.fit import fit

        return fit(rows, self.settings, pipeline="wide")

    def transformed(self, rows: DataFrame, encoder: Any) -> DataFrame:
        from mlspark.features import spark

        prepared, columns = spark.encoded(rows, encoder)
        return prepared.select(*columns, spark.label(encoder), "row_id")


class Now:
    """What mlspark of today does with them."""

    def __init__(self, num_columns: int) -> None:
        from mlspark.features.settings import FeaturesSettings
        from mlspark.tasks.kinds import from_settings

        self.settings = FeaturesSettings.model_validate_json(json.dumps({"inputs": inputs(num_columns)}))
        self.task = from_settings({"kind": "binary", "target": "rich", "classes": ["no", "yes"]})

    def start(self) -> SparkSession:
        """Return the session that a job has which reads so few bytes."""
        from mlspark.commands import java_options

        spark = session.start("wide", java_options=java_options.small())
        session.plan_ahead(spark)
        return spark

    def fit(self, rows: DataFrame) -> Any:
        from mlspark.features.fit import fit

        return fit(rows, self.settings, self.task, pipeline="wide")

    def transformed(self, rows: DataFrame, encoder: Any) -> DataFrame:
        from mlspark.features.encode_spark import encoded_sql, named

        prepared, outputs = encoded_sql(rows, encoder)
        label = f"CAST({self.task.label_sql('string')} AS FLOAT)"
        return prepared.selectExpr(*named({**outputs, "label": label, "row_id": "row_id"}))


def _used() -> float:
    """Return the processor seconds of this process, Java and Python's workers."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def main(folder: Path, num_columns: int, *, is_fit: bool) -> None:
    """Fit an encoder and keep it in `folder`, or write there what it takes from asking for its outputs to the first rows."""
    from mlspark.features.encoder import Encoder

    side = (Early if find_spec("mlspark.feature_settings") else Now)(num_columns)
    kept = folder / "encoder.json"
    encoder = None if is_fit else Encoder.from_json(json.loads(kept.read_text()))
    spark = side.start()
    try:
        rows = spark.read.parquet(str(folder.parent / FILE))
        rows.limit(_FIRST_ROWS).toArrow()  # what any first query takes
        started, used = time.monotonic(), _used()
        if encoder is None:
            encoder = side.fit(rows)
            kept.write_text(json.dumps(encoder.to_json()))
        else:
            assert side.transformed(rows, encoder).limit(_FIRST_ROWS).toArrow().num_rows == _FIRST_ROWS
        figures = {"seconds": time.monotonic() - started, "processor_seconds": _used() - used}
        (folder / "figures.json").write_text(json.dumps({**figures, "outputs": len(encoder.outputs)}))
    finally:
        spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), is_fit="--fit" in sys.argv[3:])
