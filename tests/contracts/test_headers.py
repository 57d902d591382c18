"""A header where a column's name belongs is answered in one short line, and is never taken for arithmetic."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.contracts import check_spark, contract, headers
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import MALFORMED, RAW, SOURCE_FILE
from mlspark.errors import ContractError, SourceError
from mlspark.sources import source
from mlspark.sources.settings import SourceSettings

COLUMNS = [
    {"name": "education", "type": "int"},
    {"name": "num", "type": "int"},
    {"name": "education_num", "header": "education-num", "type": "int"},
    {"name": "native_country", "header": "native country", "type": "string"},
    {"name": "a_b", "header": "a.b", "type": "int"},
    {"name": "pay", "header": "Income", "type": "int"},
    {"name": "column_7", "header": "возраст", "type": "int"},
    {"name": "seen", "header": "last seen", "type": "date"},
]
ANSWER = "the column of header 'education-num' is called `education_num`"
ARITHMETIC = "; if arithmetic is meant, put its columns in ( )"


def loaded(folder: Path, **more: Any) -> Contract:
    (folder / "people.json").write_text(json.dumps({"name": "people", "columns": COLUMNS, **more}))
    return contract.load(str(folder / "people.json"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # Columns `education` and `num` are there, too: a difference of them would have been computed.
        ("education-num > 3", ANSWER + ARITHMETIC),
        ("`education-num` > 3", ANSWER + ARITHMETIC),
        ("native country = 'Peru'", "the column of header 'native country' is called `native_country`"),
        ("a.b > 1 and num > 2", "the column of header 'a.b' is called `a_b`"),
        ("Income > 3", "the column of header 'Income' is called `pay`"),
        ("возраст > 3", "the column of header 'возраст' is called `column_7`"),
        ("(education) - (num) > 3", ""),
        ("education - num > 3", ""),
        ("native_country = 'education-num'", ""),
        ("my_education-numb > 3", "my_education is not a column"),
    ],
)
@pytest.mark.parametrize("is_batch_only", [False, True])
def test_rules_have_names(spark: SparkSession, tmp_path: Path, text: str, answer: str, is_batch_only: bool) -> None:
    rules = [{"name": "grown", "expression": text, "batch_only": is_batch_only}]
    raw = spark.createDataFrame([], f"{MALFORMED} string, {RAW} string, {SOURCE_FILE} string")
    if not answer:
        check_spark.conform(raw, loaded(tmp_path, rules=rules))
        return
    with pytest.raises(ContractError) as refused:
        check_spark.conform(raw, loaded(tmp_path, rules=rules))
    message = str(refused.value)
    if answer.startswith("the column"):
        assert message.endswith(f"rule grown: {answer}")
        assert len(message) < len(str(tmp_path)) + 200
    elif not is_batch_only:
        assert answer in message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"label": "education-num"}, f"label 'education-num': {ANSWER}"),
        ({"unique_key": ["education-num"]}, f"unique_key 'education-num': {ANSWER}"),
        (
            {"freshness": {"column": "last seen", "max_age_hours": 1.0}},
            "freshness 'last seen': the column of header 'last seen' is called `seen`",
        ),
        ({"label": "educaton"}, "label 'educaton': not a column of contract people, did you mean education?"),
    ],
)
def test_keys_of_a_contract_have_names(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError) as refused:
        loaded(tmp_path, **more)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("education-num > 3", "column 'education-num' has to stand in backquotes: `education-num`" + ARITHMETIC),
        ("native country = 'Peru'", "column 'native country' has to stand in backquotes: `native country`"),
        ("education_num > 3", "column education_num is called `education-num` in the source"),
        ("`education-num` > 3 AND `native country` = 'education-num'", ""),
        ("(education) - (num) > 3", ""),
        ("age > 3", "the source's columns are education, num, education-num"),
    ],
)
def test_filters_have_the_headers_in_backquotes(spark: SparkSession, tmp_path: Path, text: str, answer: str) -> None:
    of_rows = loaded(tmp_path)
    rows = spark.createDataFrame([], ", ".join(f"`{column.source_name}` {column.type}" for column in of_rows.columns))
    settings = SourceSettings(kind="csv", filter=text)
    if not answer:
        assert source.filtered(rows, settings, of_rows).columns == rows.columns
        return
    with pytest.raises(SourceError) as refused:
        source.filtered(rows, settings, of_rows)
    assert answer in str(refused.value)
    assert "age" in text or str(refused.value) == f"filter {text!r}: {answer}"


def test_words_and_functions_are_no_headers() -> None:
    called = {"length": "size", "1": "column_1", "-": "column_2", "is": "column_3"}
    for text in ("length(name) - 1 > 0", "name is missing", "1 - age"):
        assert headers.in_expression(text, called) == ""
    assert headers.in_expression("length(name) > 1", called, is_refused=True) == ""
