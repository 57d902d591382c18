"""Every type and feature of tables: a stream has the values of Spark, bit for bit, or says why not."""

import importlib.util
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from mlspark.errors import MlsparkError
from mlspark.streaming import delta_files
from mlspark.streaming.stream import Stream

from .table_features import SPARK_TABLES, Feature, Table
from .table_features_of_others import OTHER_TABLES

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "tables.md"
TABLES = (*SPARK_TABLES, *OTHER_TABLES)
# Rows are few and statements many: what Spark compiles and exchanges for large tables takes most of the time.
SMALL = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
}


def bits(column: Any, kind: T.DataType) -> Any:
    """Return a column of Spark as a stream has it: whole numbers for times, doubles for decimals, bytes for texts."""
    if isinstance(kind, T.ArrayType):
        return F.transform(column, lambda element: bits(element, kind.elementType))
    if isinstance(kind, T.DecimalType):
        return column.cast("double")
    if isinstance(kind, T.DateType):
        return F.unix_date(column)
    if isinstance(kind, T.TimestampType | T.TimestampNTZType):
        return F.unix_micros(column.cast("timestamp"))
    return column.cast("binary") if isinstance(kind, T.StringType) else column


def filling(kind: T.DataType) -> Any:
    """Return what stands for null."""
    if isinstance(kind, T.ArrayType):
        return []
    if isinstance(kind, T.StringType):
        return "~"
    if isinstance(kind, T.BinaryType):
        return b"~"
    return True if isinstance(kind, T.BooleanType) else 1.0 if isinstance(kind, T.FractionalType) else 1


def key(value: Any) -> Any:
    """Return a value that equals another where all bits do."""
    if isinstance(value, list):
        return tuple(map(key, value))
    if isinstance(value, float):
        return np.float64(value).tobytes()
    return bytes(value) if isinstance(value, bytearray) else value


def asked_for(feature: Feature, rows: DataFrame) -> list[str]:
    return list(feature.columns) or [name for name in rows.columns if name != "id"]


def expected(rows: DataFrame, names: list[str]) -> dict[str, dict[int, Any]]:
    """Return for each column the values by id."""
    kinds = {field.name: field.dataType for field in rows.schema}
    columns = [bits(F.col(f"`{name}`"), kinds[name]).alias(str(number)) for number, name in enumerate(names)]
    fills = [filling(kinds[name]) for name in names]
    fills = [fill.encode() if isinstance(fill, str) else fill for fill in fills]
    collected = rows.select("id", *columns).collect()
    assert len({row[0] for row in collected}) == len(collected) > 0
    return {
        name: {row[0]: key(fill if row[place] is None else row[place]) for row in collected}
        for place, (name, fill) in enumerate(zip(names, fills, strict=True), start=1)
    }


def streamed(table: Any, names: list[str], fills: dict[str, Any]) -> dict[str, dict[int, Any]]:
    """Return the same of a stream."""
    fields = {f"field {number}": name for number, name in enumerate(names)}
    values: dict[str, dict[int, Any]] = {name: {} for name in names}
    with Stream(table, columns={"row": "id"} | fields, batch_size=4096, fill=fills) as batches:
        for batch in batches:
            assert not batch["is_padding"].any()
            ids = batch["row"].tolist()
            for field, name in fields.items():
                is_list = batches.snapshot.columns[name].declared.startswith("array")
                column = column_values(batch, field, is_list=is_list)
                assert values[name].keys().isdisjoint(ids)
                values[name] |= zip(ids, map(key, column), strict=True)
    return values


def column_values(batch: dict[str, Any], field: str, *, is_list: bool) -> list[Any]:
    if f"{field}_offsets" not in batch:
        return batch[field].tolist()
    values, offsets = batch[field].tolist(), batch[f"{field}_offsets"].tolist()
    parts = (values[first:last] for first, last in pairwise(offsets))
    return list(parts if is_list else map(bytes, parts))


def compare(spark: SparkSession, path: str, features: list[Feature]) -> None:
    """Hold a stream of the table as it is now against Spark."""
    rows = spark.read.format("delta").load(path)
    lists = [field.name for field in rows.schema if isinstance(field.dataType, T.ArrayType)]
    refused = [feature for feature in features if feature.refused]
    for feature in refused:
        with pytest.raises(MlsparkError) as refusal:
            streamed(path, asked_for(feature, rows), {name: [] for name in lists})
        assert feature.refused in str(refusal.value)
    read = [feature for feature in features if not feature.refused]
    if not read:
        return
    names = list(dict.fromkeys(name for feature in read for name in asked_for(feature, rows)))
    right = expected(rows, names)
    fills = {field.name: filling(field.dataType) for field in rows.schema if field.name in names}
    whole = streamed(path, names, fills)
    # A condition that all rows satisfy leaves none out, whatever the names, ids and statistics of the files.
    by_condition = delta_files.take(path, where=[("id", ">=", 0)])
    for feature in read:
        wanted = asked_for(feature, rows)
        assert {name: whole[name] for name in wanted} == {name: right[name] for name in wanted}, feature.name
        assert streamed(by_condition, wanted, fills) == {name: right[name] for name in wanted}, feature.name


def written_and_compared(spark: SparkSession, path: str, table: Table) -> None:
    """Take the steps of a table; adjacent features are compared together."""
    together: list[Feature] = []
    for step in (*table.steps, None):
        if isinstance(step, Feature):
            together.append(step)
            continue
        if together:
            compare(spark, path, together)
            together = []
        if isinstance(step, dict):
            for name, value in step.items():
                spark.conf.set(name, value)
        elif isinstance(step, str):
            spark.sql(step.format(t=f"delta.`{path}`", p=path))
        elif step is not None:
            step(spark, path)


@pytest.fixture(scope="module")
def comparisons(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[None]]]:
    """All tables that are asked for, two at a time: Spark leaves half of two cores idle with one."""
    places = [item.callspec.params.get("table") for item in request.session.items if hasattr(item, "callspec")]
    folder = tmp_path_factory.mktemp("tables")

    def run(table: Table) -> None:
        session = spark.newSession()
        for name, value in SMALL.items():
            session.conf.set(name, value)
        written_and_compared(session, str(folder / f"{table.name} ü"), table)

    with ThreadPoolExecutor(2) as pool:
        asked = [table for table in TABLES if table in places and (not table.needs or has_package(table.needs))]
        yield {table.name: pool.submit(run, table) for table in asked}


def has_package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize(
    "table",
    [pytest.param(table, marks=pytest.mark.slow if table.is_slow else (), id=table.name) for table in TABLES],
)
def test_values_are_those_of_spark_or_refused_with_these_words(
    comparisons: dict[str, Future[None]], table: Table
) -> None:
    if table.needs and not has_package(table.needs):
        pytest.skip(f"no {table.needs}")
    comparisons[table.name].result()


def test_documentation_has_every_feature_with_what_becomes_of_it() -> None:
    assert documented() in DOCUMENTATION.read_text(), f"write into {DOCUMENTATION}:\n{documented()}"
    assert sum(len(table.features) for table in TABLES) >= 100


def documented() -> str:
    """Return the table of features as the documentation has it."""
    lines = ["| written by | type or feature | read |", "| --- | --- | --- |"]
    lines += [f"| {table.writer} | {step.name} | {step.outcome} |" for table in TABLES for step in table.features]
    return "\n".join(lines) + "\n"
