"""A data frame's rows held against a contract: what is missing, and each type as pandas has it."""

import datetime
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlspark.contracts import check_arrow
from mlspark.contracts.contract import Contract
from mlspark.contracts.data_frames import from_pandas
from mlspark.errors import ContractError


def contract_of(kind: str, **column: Any) -> Contract:
    text = json.dumps({"name": "c", "columns": [{"name": "x", "type": kind, **column}]})
    return Contract.model_validate_json(text)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("int", [1.0, np.nan], [1, None]),
        ("int", pd.array([1, None], dtype="Int64"), [1, None]),
        ("int", [True, False], [1, 0]),
        ("bigint", [2**53 + 1, 0], [2**53 + 1, 0]),
        ("double", [1.5, np.nan], [1.5, None]),
        ("double", [1, 2], [1.0, 2.0]),
        ("double", np.array([1.5, None], object), [1.5, None]),
        ("boolean", [True, None], [True, None]),
        ("string", ["a", np.nan], ["a", None]),
        ("string", pd.array(["a", None], dtype="string"), ["a", None]),
        ("string", pd.Categorical(["a", None]), ["a", None]),
        ("date", pd.to_datetime(["2020-01-31", None]), [datetime.date(2020, 1, 31), None]),
        ("date", [datetime.date(2020, 1, 31), None], [datetime.date(2020, 1, 31), None]),
        ("date", ["2020-01-31", None], [datetime.date(2020, 1, 31), None]),
        (
            "timestamp",
            [pd.Timestamp("2020-01-31 10:00:00.5"), pd.NaT],
            [datetime.datetime(2020, 1, 31, 10, 0, 0, 500_000, datetime.UTC), None],
        ),
        ("decimal(6,2)", [Decimal("1.5"), None], [Decimal("1.50"), None]),
        ("decimal(6,2)", [1.5, np.nan], [Decimal("1.50"), None]),
        ("array<float>", [[1.0, 2.0], None], [[1.0, 2.0], None]),
        ("array<float>", [np.array([1, 2]), None], [[1.0, 2.0], None]),
        ("int", np.array([True, 5, None], object), [1, 5, None]),
        ("double", [10**20, 0.5], [1e20, 0.5]),
    ],
)
def test_values_of_a_data_frame_have_the_contracts_type(kind: str, values: Any, expected: list[Any]) -> None:
    contract = contract_of(kind)
    rows = check_arrow.check(from_pandas(pd.DataFrame({"x": values}), contract), contract)
    assert rows.column("x").to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("int", [1.5, 2.0], "x.type: expected int: row 0 has 1.5"),
        ("int", ["1", "2"], "x.type: is string, expected int: row 0 has '1'"),
        ("bigint", [0.0, 2.0**53], "x.type: expected bigint: row 1 has 9007199254740992.0"),
        ("string", [5, 6], "x.type: is int64, expected string: row 0 has 5"),
        ("string", [10**39, 1], f"x.type: is decimal256(40, 0), expected string: row 0 has {10**39}"),
        ("int", [1, 10**30], f"x.type: expected int: row 1 has {10**30}"),
        ("int", [10**80], f"x.type: expected int: row 0 has {10**80}"),
        ("int", [1, "a"], "x.type: is string, expected int: row 1 has 'a'"),
        ("int", [1, Decimal(1), "a"], "x.type: expected int: "),
        ("array<float>", [[10**30, 1]], f"x.type: expected array<float>: row 0 has [{10**30}, 1]"),
        ("date", pd.to_datetime(["2020-01-31 10:00"]), "x.type: expected date: row 0 has"),
        ("timestamp", pd.to_datetime(["2020-01-31 10:00:00.123456789"]), "x.type: expected timestamp: row 0 has"),
        ("array<float>", [[1.0, np.nan]], "x.finite: row 0 has [1.0, nan]"),
        ("array<float>", [[1.0, None]], "x.type: expected array<float>: row 0 has [1.0, None]"),
    ],
)
def test_other_values_are_refused_by_column_rule_and_row(kind: str, values: Any, message: str) -> None:
    contract = contract_of(kind)
    with pytest.raises(ContractError) as refused:
        check_arrow.check(from_pandas(pd.DataFrame({"x": values}), contract), contract)
    assert str(refused.value).startswith(f"contract c: {message}")
