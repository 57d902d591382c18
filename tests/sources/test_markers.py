"""Several texts may stand for a missing value, of all columns or of each, in CSV and in JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pyspark.sql import SparkSession

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import RAW, REASONS
from mlspark.errors import SourceError
from mlspark.intake import draft as drafts
from mlspark.intake import rows as intake
from mlspark.sources import catalog, markers
from mlspark.sources.catalog import AnySource

CONTRACT = Contract(
    name="people",
    columns=(
        ColumnRule(name="age", type="int"),
        ColumnRule(name="job", type="string"),
        ColumnRule(name="education_num", header="education-num", type="int"),
    ),
)
ROWS = [("39", "?", "NA"), ("-1", "NA", "-1"), ("NA", "-1", "7"), ("5", "", "?")]


def settings(kind: str, path: Path, missing: Any) -> Any:
    header = {"header": True} if kind == "csv" else {}
    text = json.dumps({"kind": kind, "path": str(path), "missing": missing, **header})
    return TypeAdapter(AnySource).validate_json(text)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("?", {"*": ("?",)}),
        ("", {}),
        (["?", "NA", "?"], {"*": ("?", "NA")}),
        ({"age": "-1", "*": ["?"]}, {"age": ("-1",), "*": ("?",)}),
        ({"age": []}, {"age": ()}),
    ],
)
def test_each_way_to_say_it_is_one_setting(missing: Any, expected: dict[str, tuple[str, ...]]) -> None:
    found = settings("csv", Path("a.csv"), missing)
    assert found.missing == expected
    assert TypeAdapter(AnySource).validate_json(found.model_dump_json()) == found


def test_numbers_are_to_be_quoted() -> None:
    with pytest.raises(ValidationError, match="-1 is no text: put it in quotes, as it stands in the data"):
        settings("csv", Path("a.csv"), {"age": -1})


def test_own_texts_of_a_column_count_instead_of_those_of_all() -> None:
    assert markers.of({"*": ["?"], "age": ["-1"]}, "age") == ["-1"]
    assert markers.of({"*": ["?"], "age": ["-1"]}, "job") == ["?"]
    assert markers.of({"education-num": ["-1"]}, "education-num", "education_num") == ["-1"]
    assert markers.of({"education_num": ["-1"]}, "education-num", "education_num") == ["-1"]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_values_are_missing_where_their_own_column_says_so(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    names = [column.source_name for column in CONTRACT.columns]
    file = tmp_path / f"people.{kind}"
    lines = [",".join(names), *(",".join(row) for row in ROWS)]
    if kind == "json":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in ROWS]
    file.write_text("\n".join(lines) + "\n")
    configured = settings(kind, file, {"*": ["?", "NA", ""], "education-num": ["NA", "?"], "age": ["NA", "-1"]})
    source = catalog.find(spark, configured, root=".")
    conformed = intake.conform(spark, {"learn": source}, CONTRACT).orderBy(RAW).collect()
    found = {(row.age, row.job or None, row.education_num) for row in conformed}
    assert found == {(39, None, None), (None, None, -1), (None, "-1", 7), (5, None, None)}
    assert all(not row[REASONS] for row in conformed)
    draft = drafts.draft_from(spark, configured, name="people")
    assert [(rule.source_name, rule.type, rule.nullable) for rule in draft.contract.columns] == [
        ("age", "int", True),
        ("job", "string" if kind == "json" else "int", True),
        ("education-num", "int", True),
    ]


def test_column_that_is_not_there_is_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("age,job\n1,x\n")
    source = catalog.find(spark, settings("csv", tmp_path / "people.csv", {"ages": "?"}), root=".")
    with pytest.raises(SourceError, match=r"missing: ages: not a column, did you mean age\?"):
        catalog.read(spark, source, CONTRACT)
