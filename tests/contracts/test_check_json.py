"""Rows of JSON, each judged by itself."""

import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from mlspark.contracts import check_arrow, check_json
from mlspark.contracts.contract import ColumnRule, Contract, RowRule, SchemaPolicy

CONTRACT = Contract(
    name="example",
    columns=(
        ColumnRule(name="age", type="int", nullable=False, min=0),
        ColumnRule(name="years", header="education-num", type="double", max=1e30),
        ColumnRule(name="text", type="string", allowed=("red", "blue")),
        ColumnRule(name="flag", type="boolean"),
        ColumnRule(name="day", type="date"),
        ColumnRule(name="amount", type="decimal(30,2)"),
        ColumnRule(name="vector", type="array<float>", min_length=2),
        ColumnRule(name="photo", type="binary"),
    ),
    rules=(RowRule(name="grown", expression="age >= 18 or years < 12"),),
)
ROW: dict[str, Any] = {
    "age": 39, "years": 13.5, "text": "red", "flag": True, "day": "2024-02-29", "amount": "12.34", "vector": [0.5, 1.0],
    "photo": "AAAA",
}  # fmt: skip
HUGE, WIDE = 2**70, 10**20


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, []),
        ({"age": 39.0}, []),
        ({"age": 39.5}, ["age.type"]),
        ({"age": "39"}, ["age.type"]),
        ({"age": HUGE}, ["age.type"]),
        ({"age": {"is": 39}}, ["age.type"]),
        ({"age": None}, ["age.null"]),
        ({"age": -1, "text": "pink"}, ["age.min", "text.allowed"]),
        ({"age": 5}, ["grown"]),
        ({"years": 13}, []),
        ({"years": WIDE}, []),
        ({"years": HUGE + 1}, ["years.type"]),
        ({"years": 1e31}, ["years.max"]),
        ({"years": float("inf")}, ["years.finite", "years.max"]),
        ({"text": 5}, ["text.type"]),
        ({"text": "\ud800"}, ["text.type"]),
        ({"flag": 1}, []),
        ({"flag": "true"}, ["flag.type"]),
        ({"day": 5}, ["day.type"]),
        ({"day": "2024-02-30"}, ["day.type"]),
        ({"amount": 12}, []),
        ({"amount": 12.34}, []),
        ({"amount": WIDE}, []),
        ({"amount": "1.234"}, ["amount.type"]),
        ({"vector": []}, ["vector.min_length"]),
        ({"vector": [1, 2.5]}, []),
        ({"vector": [1, None]}, ["vector.type"]),
        ({"vector": ["1", "2"]}, ["vector.type"]),
        ({"vector": [True, 1]}, ["vector.type"]),
        ({"photo": b"\x00\x01"}, []),
        ({"photo": "A"}, ["photo.type"]),
        ({"other": 5}, []),
        ({"education-num": 13.5}, ["years.twice"]),
    ],
)
def test_row_breaks_the_rules_that_it_breaks(change: dict[str, Any], reasons: list[str]) -> None:
    broken = check_json.conform([ROW | change], CONTRACT).broken
    assert [each.reason for each in broken] == reasons
    assert all(each.value == change[each.column] for each in broken if each.column in change and each.column != "photo")


def test_what_is_said_of_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    values: dict[str, list[Any]] = {
        "age": [39, 39.0, 39.5, "39", None, True, HUGE, [1], {"a": 1}, -1, 2**31],
        "years": [1, 1.5, True, "1", None, WIDE, HUGE + 1, 1e300, -0.0, 2**53 + 1],
        "text": ["red", "pink", None, 5, "\ud800", ["red"], ""],
        "flag": [True, 0, 1.0, 2, "true", None],
        "day": ["2024-02-29", "2024-02-30", 5, None, "0000-01-01"],
        "amount": [12, 12.34, "12.34", "x", WIDE, 10**40, None, 1.005],
        "vector": [[], [1, 2], [1.5, 2], [None, 1], ["a"], [True, False], [[1], [2]], [2**60 + 1, 1], None, 5],
        "photo": ["AAAA", "A", b"\x00", None, 5, ""],
    }
    draw = random.Random(1)
    rows = [{name: draw.choice(of_column) for name, of_column in values.items()} for _ in range(300)]
    for row in rows[::7]:
        del row[draw.choice(list(row))]
    together = check_json.conform(rows, CONTRACT)
    for place, row in enumerate(rows):
        alone = check_json.conform([row], CONTRACT)
        assert [replace(each, row=place) for each in alone.broken] == [e for e in together.broken if e.row == place]
        assert together.rows.slice(place, 1).equals(alone.rows.slice(0, 1))


def test_rows_of_one_type_are_judged_as_a_table_of_them() -> None:
    rows = [ROW, ROW | {"age": -1}, ROW | {"age": None, "years": None}, ROW | {"text": "pink", "vector": [1.0]}]
    of_table = check_arrow.conform(pa.Table.from_pylist(rows), CONTRACT)
    of_json = check_json.conform(rows, CONTRACT)
    assert of_json.broken == of_table.broken
    assert of_json.rows == of_table.rows


def test_values_are_those_of_the_contract_s_types() -> None:
    rows = check_json.conform([ROW | {"age": 5.0, "years": WIDE, "amount": WIDE}, ROW], CONTRACT).rows.to_pylist()
    assert rows[0]["age"] == 5
    assert isinstance(rows[0]["age"], int)
    assert (rows[0]["years"], rows[0]["amount"]) == (1e20, Decimal(WIDE))
    assert rows[1]["years"] == 13.5


def test_columns_that_are_missing_or_unknown_follow_the_schema_policy() -> None:
    without = {name: value for name, value in ROW.items() if name != "age"}
    assert [str(each) for each in check_json.conform([ROW, without], CONTRACT).broken] == [
        "age.missing: row 1 has None"
    ]
    lenient = CONTRACT.model_copy(update={"schema_policy": SchemaPolicy(missing="ignore")})
    assert [each.reason for each in check_json.conform([without], lenient).broken] == ["age.null"]
    strict = CONTRACT.model_copy(update={"schema_policy": SchemaPolicy(extra="refuse")})
    more = ROW | {"label": 1, "other": 2}
    assert [each.reason for each in check_json.conform([more], strict, ignored=["label"]).broken] == ["other.extra"]


def test_bytes_are_shown_by_their_digest() -> None:
    [broken] = check_json.conform([ROW | {"photo": "A"}], CONTRACT).broken
    assert broken.value.startswith("sha256:")
    assert broken.value.endswith(", 1 bytes")
