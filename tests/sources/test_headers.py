"""Columns with any header come in exactly, from every kind of file: what is drafted from them reads them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mlspark.commands import source_arguments
from mlspark.contracts import check_spark
from mlspark.contracts.own_columns import RAW, REASONS
from mlspark.intake import draft as drafts
from mlspark.intake import rows as intake
from mlspark.sources import catalog

HEADERS = ["age", "education-num", "native country", "a.b", "Größe (cm)", "возраст", "_id", "sou'rce?", "class"]
NAMES = ["age", "education_num", "native_country", "a_b", "Grosse_cm", "column_6", "id", "sou_rce", "class"]
ROWS = [[row * 10 + place for place in range(len(HEADERS))] for row in range(3)]


def write(folder: Path, kind: str) -> Path:
    file = folder / f"people.{kind}"
    table = pa.table({header: [row[place] for row in ROWS] for place, header in enumerate(HEADERS)})
    if kind == "parquet":
        pq.write_table(table, file)
    elif kind == "csv":
        pa.csv.write_csv(table, file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("csv", ["header=true", "filter=`education-num` > 1 AND `a.b` < 100"]),
        ("parquet", ["filter=`education-num` > 1 AND `a.b` < 100"]),
        ("json", []),
    ],
)
def test_draft_keeps_every_header_and_reads_every_column(
    spark: SparkSession, tmp_path: Path, kind: str, options: list[str]
) -> None:
    file = write(tmp_path, kind)
    settings: Any = source_arguments.settings(str(file), kind, options)
    draft = drafts.draft_from(spark, settings, name="people", label="education-num")
    contract = draft.contract
    assert [column.source_name for column in contract.columns] == HEADERS
    assert list(contract.names) == NAMES
    assert contract.label == "education_num"
    assert any("'education-num' is education_num, 'native country' is native_country" in note for note in draft.notes)
    source = catalog.find(spark, settings, root=".")
    conformed = intake.conform(spark, {"learn": source}, contract).orderBy("age").collect()
    assert [list(row[: len(NAMES)]) for row in conformed] == [row for row in ROWS if not options or row[1] > 1]
    assert all(not row[REASONS] for row in conformed)
    assert all("education-num" in row[RAW] for row in conformed if kind != "csv")
    [differences] = intake.compare_columns(spark, {"learn": source}, contract).values()
    assert differences.to_json() == {}


def test_label_under_its_header_is_ignored_where_rows_are_to_be_scored(spark: SparkSession, tmp_path: Path) -> None:
    settings: Any = source_arguments.settings(str(write(tmp_path, "parquet")), "parquet", [])
    contract = drafts.draft_from(spark, settings, name="people", label="education-num").contract
    schema = catalog.columns(spark, catalog.find(spark, settings, root="."))
    assert schema is not None
    differences = check_spark.differences(schema, contract.scoring_view(), ignored=["education_num", "education-num"])
    assert differences.to_json() == {}
