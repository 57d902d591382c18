"""Rows that are as they should be are typed without Arrow, as `check_json` types them; about all others nothing is said."""

import random
from typing import Any

import pytest

from mlspark.contracts import check_json
from mlspark.contracts.check_plain import MOST_ROWS, PlainCheck
from mlspark.contracts.contract import ColumnRule, Contract, RowRule, SchemaPolicy

CONTRACT = Contract(
    name="example",
    columns=(
        ColumnRule(name="age", type="int", nullable=False, min=0),
        ColumnRule(name="small", type="smallint", max=99.5),
        ColumnRule(name="big", type="bigint"),
        ColumnRule(name="years", header="education-num", type="double", min=-1.5, max=1e30),
        ColumnRule(name="single", type="float", max=3),
        ColumnRule(name="text", type="string", allowed=("red", "blue")),
        ColumnRule(name="name", type="string"),
        ColumnRule(name="code", type="string", pattern="[a-z]+", max_length=3),
        ColumnRule(name="flag", type="boolean"),
        ColumnRule(name="day", type="date", min="2000-01-01"),
        ColumnRule(name="amount", type="decimal(30,2)"),
        ColumnRule(name="vector", type="array<float>", min_length=2),
        ColumnRule(name="photo", type="binary"),
    ),
    rules=(RowRule(name="grown", expression="age >= 18 or years < 12"),),
)
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    # column: values that are plainly good, values that are broken or odd
    "age": ([39, 18, 2**31 - 1], [39.0, 39.5, "39", None, True, 2**70, [1], {"a": 1}, -1, 2**31, 5]),
    "small": ([99, -(2**15), None], [100, -(2**15) - 1, 2**15, False]),
    "big": ([2**63 - 1, -(2**63), 2**53 + 1, None], [2**63, -(2**63) - 1, 1.0]),
    "years": ([13.5, -1.5, 1e30, 13, -0.0, 5e-324, None], [2**53, 2**53 + 1, 1e31, float("inf"), -1.6, True, "1"]),
    "single": ([0.1, 3, 1e-50, -(2**52) - 1, 3.0000001, None], [3.1, 1e300, -1e39, 2**60, float("inf")]),
    "text": (["red", "blue", None], ["pink", "", 5, "\ud800"]),
    "name": (["", "Zürich", "\u2028", "\x00", "🙂", None], ["\ud800", 5, b"a", ["a"]]),
    "code": (["abc", "a", None], ["abcd", "A", "", 5]),
    "flag": ([True, False, None], [1, 0.0, 2, "true"]),
    "day": (["2024-02-29", None], ["2024-02-30", 5, "1999-12-31"]),
    "amount": ([12, 12.34, "12.34", 10**20, None], ["x", "1.234", 10**40, 1.005]),
    "vector": ([[1.5, 2.0], [1, 2], [0.0, -0.0, 1.0], None], [[], [1], [None, 1], ["a", "b"], 5]),
    "photo": (["AAAA", b"\x00", "", None], ["A", 5]),
}


def drawn(draw: random.Random) -> dict[str, Any]:
    """A row with an odd value now and then."""
    odd = draw.choice(list(VALUES)) if draw.random() < 0.3 else ""
    return {name: draw.choice(others if name == odd else good) for name, (good, others) in VALUES.items()}


def test_rows_are_typed_as_by_the_way_of_all_rows_or_left_to_it() -> None:
    draw, check, num_typed = random.Random(1), PlainCheck(CONTRACT), 0
    for num_rows in (1, 2, 3) * 150:
        rows = [drawn(draw) for _ in range(num_rows)]
        conformed = check_json.conform(rows, CONTRACT)
        good = check.good(rows)
        if good is None:
            continue
        assert conformed.broken == ()
        assert good.table().equals(conformed.rows)
        num_typed += 1
    assert num_typed > 150


@pytest.mark.parametrize("name", VALUES)
def test_values_that_are_good_need_no_other_way(name: str) -> None:
    check, row = PlainCheck(CONTRACT), {name: good[0] for name, (good, _) in VALUES.items()}
    for value in VALUES[name][0]:
        good = check.good([row | {name: value}])
        assert good is not None, value
        assert good.table().equals(check_json.conform([row | {name: value}], CONTRACT).rows)
    for value in VALUES[name][1]:
        assert check.good([row, row | {name: value}]) is None, value


def test_columns_follow_the_schema_policy_and_both_of_their_names() -> None:
    row = {name: good[0] for name, (good, _) in VALUES.items()}
    without = {name: value for name, value in row.items() if name != "years"}
    check = PlainCheck(CONTRACT)
    by_header = check.good([without | {"education-num": 13.5, "other": [1]}])
    assert by_header is not None
    assert by_header.plain("years") == [13.5]
    assert check.good([row | {"education-num": 13.5}]) is None
    assert check.good([without]) is None
    lenient = PlainCheck(CONTRACT.model_copy(update={"schema_policy": SchemaPolicy(missing="ignore", extra="refuse")}))
    assert lenient.good([without]) is not None
    assert lenient.good([row | {"other": 1}]) is None
    strict = CONTRACT.model_copy(update={"schema_policy": SchemaPolicy(extra="refuse")})
    assert PlainCheck(strict, ignored=["label"]).good([row | {"label": 1}]) is not None


def test_no_rows_and_many_are_left_to_the_other_way() -> None:
    check, row = PlainCheck(CONTRACT), {name: good[0] for name, (good, _) in VALUES.items()}
    assert check.good([]) is None
    assert check.good([row] * MOST_ROWS) is not None
    assert check.good([row] * (MOST_ROWS + 1)) is None
