"""One census from every kind of source: the same feature rows, the same account."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.contracts import contract as contracts
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.prepare import prepare

from ..conftest import ROOT, census_settings

CONTRACT = contracts.load(str(ROOT / "schemas" / "census.json"))
NAMES = [column.name for column in CONTRACT.columns]
FILES = {"learn": "adult.data", "test": "adult.test"}

Rows = list[tuple[Any, ...]]
Account = dict[str, dict[str, int]]


def account(report: dict[str, Any]) -> Account:
    """Counts of each source, without what says where it lies."""
    return {
        name: {key: count for key, count in source.items() if key.startswith(("rows_", "label_", "missing_"))}
        for name, source in report["sources"].items()
    }


def feature_rows(spark: SparkSession, report: dict[str, Any]) -> Rows:
    features = tables.read(spark, report["table"], version=report["version"])
    return sorted(tuple(row) for row in features.select(*sorted(features.columns)).collect())


@pytest.fixture(scope="module")
def expected(
    spark: SparkSession, small_census: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Rows, Account, dict[str, list[str]]]:
    """Feature rows and account of the census as CSV, and its bad lines by source."""
    settings = census_settings(small_census, tmp_path_factory.mktemp("home"))
    report = prepare(spark, settings)
    bad: dict[str, list[str]] = {name: [] for name in FILES}
    for row in tables.read(spark, settings.table("quarantine")).collect():
        bad[row["source"]].append(row["raw"])
    return feature_rows(spark, report), account(report), bad


def lines(census: Path, source: str) -> list[str]:
    found = (census / "adult" / FILES[source]).read_text().splitlines()
    return [text for text in found if text and not text.startswith("|")]


def fields(text: str) -> dict[str, str | None]:
    values = (value.strip() for value in text.split(","))
    return {name: None if value == "?" else value for name, value in zip(NAMES, values, strict=True)}


def table_of(census: Path, source: str, bad: list[str], number: pa.DataType | None = None) -> pa.Table:
    """The good rows, in the contract's types."""
    good = [fields(text) for text in lines(census, source) if text not in bad]
    number = number or pa.int32()
    types = {column.name: pa.string() if column.is_text else number for column in CONTRACT.columns}
    return pa.table({name: pa.array([row[name] for row in good]).cast(kind) for name, kind in types.items()})


def write_csv_gz(folder: Path, census: Path, source: str, bad: list[str]) -> None:
    half = len(lines(census, source)) // 2
    for name, part in (("a", lines(census, source)[:half]), ("b", lines(census, source)[half:])):
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress("\n".join(part).encode()))


def write_csv_with_header(folder: Path, census: Path, source: str, bad: list[str]) -> None:
    columns = list(reversed(NAMES))
    good = [fields(text) for text in lines(census, source) if text not in bad]
    rows = [";".join(f'"{row[name]}"' if row[name] else "" for name in columns) for row in good]
    (folder / "a.csv").write_text("\n".join([";".join(columns), *rows, *bad]))


def write_json(folder: Path, census: Path, source: str, bad: list[str]) -> None:
    numbers = {column.name for column in CONTRACT.columns if column.is_number}
    rows = [fields(text) for text in lines(census, source) if text not in bad]
    texts = [json.dumps({k: int(v) if v and k in numbers else v for k, v in row.items()}) for row in rows]
    (folder / "a.json").write_text("\n".join([*texts, *bad]))


def write_parquet(folder: Path, census: Path, source: str, bad: list[str]) -> None:
    pq.write_table(table_of(census, source, bad).select(reversed(NAMES)), folder / "a.parquet", row_group_size=100)


def write_partitions(folder: Path, census: Path, source: str, bad: list[str]) -> None:
    table = table_of(census, source, bad, pa.int64())
    pq.write_to_dataset(table, folder, partition_cols=["sex", "education_num"])


def write_orc(folder: Path, census: Path, source: str, bad: list[str]) -> None:
    orc.write_table(table_of(census, source, bad), folder / "a.orc")


def write_versions(folder: Path, census: Path, source: str, bad: list[str]) -> None:
    """Version 1 is the whole census."""
    table = table_of(census, source, bad)
    write_deltalake(folder, table.slice(0, 10))
    write_deltalake(folder, table.slice(10), mode="append")
    write_deltalake(folder, table.slice(0, 100), mode="append")
    write_deltalake(folder, table.slice(0, 5), mode="overwrite")


def settings_with(folder: Path, sources: dict[str, Any]) -> Settings:
    """The census pipeline on other sources; a file of its own, because --set lays keys over keys."""
    changed = yaml.safe_load(census_settings(folder, folder / "home").to_yaml())
    changed["sources"] = {"root": str(folder), **sources}
    (folder / "settings.yaml").write_text(yaml.safe_dump(changed))
    return loading.load([str(folder / "settings.yaml")])


KINDS: dict[str, tuple[dict[str, Any], Callable[[Path, Path, str, list[str]], None], bool]] = {
    "csv.gz": ({"kind": "csv", "missing": "?"}, write_csv_gz, True),
    "csv with header": ({"kind": "csv", "header": True, "separator": ";"}, write_csv_with_header, True),
    "json": ({"kind": "json"}, write_json, True),
    "parquet": ({"kind": "parquet"}, write_parquet, False),
    "partitions": ({"kind": "parquet"}, write_partitions, False),
    "orc": ({"kind": "orc"}, write_orc, False),
    "delta": ({"kind": "delta", "version": 1}, write_versions, False),
}


@pytest.mark.parametrize(
    ("learn", "test"),
    [
        ("csv.gz", "json"),
        ("json", "csv with header"),
        ("partitions", "parquet"),
        ("orc", "partitions"),
        ("delta", "delta"),
    ],
)
def test_same_rows_from_every_kind_of_source(
    spark: SparkSession, small_census: Path, tmp_path: Path, expected: Any, learn: str, test: str
) -> None:
    rows, counts, bad = expected
    sources = {}
    for name, kind in (("learn", learn), ("test", test)):
        options, write, holds_bad_rows = KINDS[kind]
        (tmp_path / name).mkdir()
        write(tmp_path / name, small_census, name, bad[name])
        sources[name] = {**options, "path": name}
        if not holds_bad_rows:
            good = counts[name]["rows_good"]
            counts = {**counts, name: {**counts[name], "rows_read": good, "rows_quarantined": 0}}
    report = prepare(spark, settings_with(tmp_path, sources))
    assert feature_rows(spark, report) == rows
    assert account(report) == counts
    assert report["rows_read"] == report["rows_good"] + report["rows_quarantined"]
