"""Contracts: files that are refused, rows that are good or bad for stated reasons, equal on Spark and Arrow."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from mlspark.contracts import accounting, check_arrow, check_spark, contract, json_lines
from mlspark.contracts.accounting import Account
from mlspark.contracts.contract import Contract
from mlspark.contracts.data_frames import from_pandas
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE
from mlspark.errors import ContractError

PEOPLE = Contract.model_validate_json(
    json.dumps(
        {
            "name": "people",
            "label": "rich",
            "columns": [
                {"name": "age", "type": "int", "nullable": False, "min": 0, "max": 120},
                {"name": "height", "type": "double"},
                {"name": "sex", "type": "string", "allowed": ["Female", "Male"]},
                {"name": "rich", "type": "string", "nullable": False, "allowed": ["no", "yes"]},
            ],
        }
    )
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lable": "rich"}, "line 34: lable: unknown key, did you mean label?"),
        ({"sorted": True}, "sorted: unknown key, known here: name, label, columns, rules, unique_key, min_rows"),
        (
            {"columns": [{"name": "a", "typ": "int"}]},
            "columns.0.type: missing; line 7: columns.0.typ: unknown key, did",
        ),
        ({"min_rows": "many"}, "line 34: min_rows: input should be a valid integer, got 'many'"),
        ({"columns": [{"name": "a-b", "type": "int"}]}, "line 6: columns.0.name: 'a-b' is no name of a column"),
        ({"columns": [{"name": "a b", "type": "int"}]}, 'Give it such a name, and "header": "a b" where the source'),
        ({"label": "poor"}, "label 'poor': not a column of contract"),
        ({"columns": []}, "line 4: columns: tuple should have at least 1 item"),
        (
            {"columns": [{"name": "a", "type": "string", "min": 1}]},
            "a: min needs a number, date or timestamp, not string",
        ),
        ({"columns": [{"name": "a", "type": "int", "allowed": ["x"]}]}, "a: allowed needs type string"),
        ({"columns": [{"name": "a", "type": "int"}] * 2, "label": None}, "columns declared twice: a"),
        (
            {"columns": [{"name": "a", "type": "integer"}]},
            "line 7: columns.0.type: 'integer' is not a type of a column, did you mean int? Types are boolean, smallint",
        ),
        ({"columns": [{"name": "a", "type": "long"}]}, "'long' is not a type of a column, did you mean bigint?"),
        ({"columns": [{"name": "a", "type": "int64"}]}, "'int64' is not a type of a column, did you mean bigint?"),
        ({"columns": [{"name": "a", "type": "BIGINT"}]}, "'BIGINT' is not a type of a column, did you mean bigint?"),
    ],
)
def test_wrong_contract_file_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "people.json"
    file.write_text(json.dumps(contract.to_json(PEOPLE) | change, indent=1))
    with pytest.raises(ContractError, match=r"people\.json") as refused:
        contract.load(str(file))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"name": "a",\n "columns": [,]}', "line 2, column 14: not JSON: Expecting value"),
        (b'{"name": "a",\n\n "name": "b"}', "line 3: key 'name' is given twice, first in line 1"),
        (
            b'{"name": "a", "columns": [{"name": "x", "type": "int", "max": 1,\n"max": 2}]}',
            "line 2: key 'max' is given",
        ),
        (b'{"name": "\xff"}', "is not UTF-8; save it as UTF-8"),
        (b"[]", "input should be an object, got []"),
        (b"", "line 1, column 1: not JSON: Expecting value"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_file_that_is_no_contract_at_all_is_refused_with_its_place(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "people.json").write_bytes(content)
    with pytest.raises(ContractError, match=r"contract .*people\.json: ") as refused:
        contract.load(str(tmp_path / "people.json"))
    assert message in str(refused.value)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    text = '{"name": "a, \\"b\\" {", "columns": [\n {"name": "x",\n  "type": "int"},\n {}\n]}'
    assert json_lines.lines_of(text) == {
        (): 1, ("name",): 1, ("columns",): 1, ("columns", 0): 2, ("columns", 0, "name"): 2, ("columns", 0, "type"): 3,
        ("columns", 1): 4,
    }  # fmt: skip
    file = tmp_path / "people.json"
    file.write_text("\ufeff" + json.dumps(contract.to_json(PEOPLE)), encoding="utf-8")
    assert contract.load(str(file)) == PEOPLE


def test_absent_contract_file_names_the_setting() -> None:
    with pytest.raises(ContractError, match=r"contract no/such\.json: cannot be read .* check the setting `contract`"):
        contract.load("no/such.json")


def test_each_broken_rule_is_a_reason_with_its_value(spark: SparkSession) -> None:
    rows = [
        ("39", "1.8", "Male", "yes", None),
        ("0", None, None, "no", None),
        ("forty", "NaN", "male", "yes", None),
        ("121", "Infinity", "Male", None, None),
        (None, "1e400", "", "maybe", None),
        ("1", None, None, None, "not 4 fields"),
    ]
    raw = spark.createDataFrame(
        [(*row, f"line {number}", "file") for number, row in enumerate(rows)],
        "age string, height string, sex string, rich string, _mlspark_malformed string, _mlspark_raw string, "
        "_mlspark_source_file string",
    )
    conformed = check_spark.conform(raw, PEOPLE).collect()
    found = [[(reason.column, reason.rule, reason.value) for reason in row[REASONS]] for row in conformed]
    assert found == [
        [],
        [],
        [("age", "type", "forty"), ("sex", "allowed", "male")],
        [("age", "max", "121"), ("height", "finite", "Infinity"), ("rich", "null", None)],
        [("age", "null", None), ("height", "finite", "1e400"), ("sex", "allowed", ""), ("rich", "allowed", "maybe")],
        [("", "malformed", "not 4 fields")],
    ]
    assert [row[RAW] for row in conformed] == [f"line {number}" for number in range(6)]
    assert conformed[0][:4] == (39, 1.8, "Male", "yes")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a <> ", "Syntax error"),
        ("b = 1", "`b` cannot be resolved"),
        ("sum(a) > 1", r"sum\(\) is an aggregate"),
        ("a + 1", "is no condition, but int"),
        ("_mlspark_reasons is not null", "`_mlspark_reasons` cannot be resolved"),
    ],
)
def test_free_sql_that_is_no_condition_is_refused_by_its_name(
    spark: SparkSession, expression: str, message: str
) -> None:
    rules = [{"name": "good", "expression": "a > 0"}, {"name": "odd", "expression": expression, "batch_only": True}]
    of_rows = Contract.model_validate_json(
        json.dumps({"name": "c", "columns": [{"name": "a", "type": "int"}], "rules": rules})
    )
    columns = "a string, _mlspark_malformed string, _mlspark_raw string, _mlspark_source_file string"
    rows = spark.createDataFrame([("1", None, "1", "file")], columns)
    with pytest.raises(ContractError, match=r"^contract c: rule odd: .* cannot be used: .*" + message):
        check_spark.conform(rows, of_rows)


def test_account_adds_up_and_counts_a_row_once_however_many_reasons(spark: SparkSession) -> None:
    raw = spark.createDataFrame(
        [
            ("train", "1", "1.0", "Male", "yes", None, "a", "f"),
            ("train", "-1", "1.0", "x", "yes", None, "b", "f"),
            ("test", "-1", "1.0", "Male", "no", None, "c", "f"),
        ],
        "source string, age string, height string, sex string, rich string, _mlspark_malformed string, _mlspark_raw string, "
        "_mlspark_source_file string",
    )
    conformed = check_spark.without_raw(check_spark.conform(raw, PEOPLE))
    # `conform` drops what it does not know; put the source back by row.
    by_raw = {"b": "train", "c": "test"}
    from pyspark.sql import functions as F

    source = F.coalesce(*(F.when(F.col(RAW) == raw_line, name) for raw_line, name in by_raw.items()), F.lit("train"))
    account = accounting.account(
        conformed.withColumn(SOURCE, source),
        PEOPLE,
        sources=["train", "test", "empty"],
        good_rows_with={"rich": F.col("rich") == "yes"},
    )
    none_missing = {"missing_height": 0, "missing_sex": 0}
    assert account.totals == {"rows_read": 3, "rows_good": 1, "rows_quarantined": 2}
    assert account.reasons == {"age.min": 2, "sex.allowed": 1}
    assert account.sources["train"] == {
        "rows_read": 2,
        "rows_good": 1,
        "rows_quarantined": 1,
        "rich": 1,
        **none_missing,
    }
    assert account.sources["empty"] == {
        "rows_read": 0,
        "rows_good": 0,
        "rows_quarantined": 0,
        "rich": 0,
        **none_missing,
    }


def test_data_that_is_bad_as_a_whole_is_refused_with_every_problem() -> None:
    counts = {"rows_read": 10, "rows_good": 9, "rows_quarantined": 1, "missing_height": 8, "missing_sex": 0}
    accounting.check_account(Account({"age.min": 1}, {"train": counts}), PEOPLE)
    empty = dict.fromkeys(counts, 0)
    worse = counts | {"rows_good": 8, "rows_quarantined": 2}
    with pytest.raises(ContractError) as refused:
        accounting.check_account(Account({"age.min": 2}, {"train": worse, "test": empty}), PEOPLE)
    assert str(refused.value) == (
        "contract people: 2 of 10 rows are bad (age.min 2), more than max_quarantined_share=0.1: check the source and its "
        "settings, or raise the share in the contract; train: height: 8 of 8 values are missing: no value at all; "
        "test: 0 good rows of 0 read, fewer than min_rows=1; nothing was written"
    )


def test_stale_data_is_refused_and_a_date_column_without_values_is_no_crash() -> None:
    daily = Contract.model_validate_json(
        json.dumps(
            {
                "name": "daily",
                "columns": [{"name": "day", "type": "date", "max_missing_share": 1.0}],
                "freshness": {"column": "day", "max_age_hours": 24},
            }
        )
    )
    counts = {"rows_read": 1, "rows_good": 1, "rows_quarantined": 0, "missing_day": 0}
    assert accounting.problems(Account({}, {"a": counts}, {"a": time.time() - 3600}), daily) == []
    [stale] = accounting.problems(Account({}, {"a": counts}, {"a": time.time() - 30 * 3600}), daily)
    assert stale == "a: newest day is 30.0 hours old, more than freshness.max_age_hours=24"
    assert accounting.problems(Account({}, {"a": counts | {"missing_day": 1}}), daily) == []
    [ahead] = accounting.problems(Account({}, {"a": counts}), daily)
    assert ahead.startswith("a: every day is in the future, so nothing tells how old the data is; check the values and")


@pytest.mark.parametrize("kind", ["date", "timestamp"])
def test_a_value_of_the_future_makes_no_old_data_fresh(spark: SparkSession, kind: str) -> None:
    """Typed wrong, or the clock was set back: it says nothing; tomorrow's date is today's elsewhere."""
    columns = [{"name": "day", "type": kind}]
    fresh = {"column": "day", "max_age_hours": 24}
    daily = Contract.model_validate_json(json.dumps({"name": "daily", "columns": columns, "freshness": fresh}))
    sources = {"mixed": (-30, 3650), "ahead": (3650, None), "tomorrow": (-30, 0.5)}
    now = time.time()
    rows = [(name, None if days is None else now + days * 86400) for name, of in sources.items() for days in of]
    frame = spark.createDataFrame(rows, "source string, at double").selectExpr(
        f"CAST(CAST(at AS timestamp) AS {kind}) AS day",
        f"source AS `{SOURCE}`",
        f"CAST(array() AS array<struct<column: string, rule: string, value: string>>) AS `{REASONS}`",
    )
    problems = accounting.problems(accounting.account(frame, daily, sources=list(sources)), daily)
    assert [problem.split(":")[0] for problem in problems] == ["mixed", "ahead"]
    assert "newest day is 7" in problems[0]
    assert "every day is in the future" in problems[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": [1, None]}, "age.null: row 1 has None"),
        ({"age": [1, -1]}, "age.min: row 1 has -1"),
        ({"age": [121, 1]}, "age.max: row 0 has 121"),
        ({"age": [1.5, 2.0]}, "age.type: expected int"),
        ({"age": ["1", "2"]}, "age.type: is string, expected int"),
        ({"height": [1.0, float("inf")]}, "height.finite: row 1 has inf"),
        ({"sex": ["male", None]}, "sex.allowed: row 0 has 'male'"),
        ({"sex": None}, "columns missing: sex"),
    ],
)
def test_arrow_rows_that_break_the_contract_are_refused(change: dict[str, Any], message: str) -> None:
    columns = {"age": [1, 2], "height": [None, 1.5], "sex": ["Male", None], "extra": [0, 0]} | change
    rows = pa.table({name: values for name, values in columns.items() if values is not None})
    with pytest.raises(ContractError) as refused:
        check_arrow.check(rows, PEOPLE.scoring_view())
    assert message in str(refused.value)


def test_arrow_rows_come_back_in_the_contracts_types_and_order() -> None:
    rows = pa.table({"sex": ["Male", None], "height": [1.5, float("nan")], "age": [1.0, 2.0], "extra": [0, 0]})
    conformed = check_arrow.check(from_pandas(rows.to_pandas(), PEOPLE), PEOPLE.scoring_view())
    assert conformed.to_pydict() == {"age": [1, 2], "height": [1.5, None], "sex": ["Male", None]}
    assert check_arrow.check(rows, PEOPLE.scoring_view()) == conformed
    assert conformed.schema.types == [pa.int32(), pa.float64(), pa.string()]
