"""The record of several parts is that of all their rows, as far as the parts tell."""

from typing import Any

import numpy as np
import pytest

from mlspark.features import drift
from mlspark.features.profile_sum import added

from .test_profile import made


def test_parts_add_up_to_the_whole() -> None:
    random = np.random.default_rng(0)
    ages = [int(value) for value in random.gamma(4, 10, 900)]
    wages: list[Any] = [float(value) for value in random.normal(50, 20, 900).round(2)]
    wages[::10] = [None] * 90
    jobs = [f"job{value}" for value in random.zipf(1.8, 900) % 30]
    columns = {"age": ("int", ages), "wage": ("double", wages), "job": ("string", jobs)}
    whole = made(columns, events=90)
    cuts = ((0, 100), (100, 500), (500, 900))
    parts = [
        made({name: (type_, values[low:high]) for name, (type_, values) in columns.items()}, events=30)
        for low, high in cuts
    ]
    found = added(parts)
    assert (found["rows"], found["events"]) == (900, 90)
    for name in ("age", "wage"):
        for figure in ("type", "count", "nulls", "min", "max", "mean", "std"):
            expected = whole["columns"][name][figure]
            assert found["columns"][name][figure] == (
                expected if isinstance(expected, str) else pytest.approx(expected)
            )
        assert len(found["columns"][name]["points"]) <= 200
    assert found["columns"]["age"]["quantiles"] == pytest.approx(whole["columns"]["age"]["quantiles"])
    assert [[value, rows] for value, rows, _ in found["columns"]["job"]["values"]] == [
        [value, rows] for value, rows, _ in whole["columns"]["job"]["values"]
    ]
    compared = drift.compare(whole, found)["columns"]
    assert max(column["psi"] for column in compared.values()) < 1e-3
    assert added(parts[:1]) == parts[0]


def test_values_that_a_part_may_have_without_naming_them_are_not_told() -> None:
    crowd = made({"x": ("string", [f"v{place}" for place in range(60)] * 2 + ["a"] * 9)})
    few = made({"x": ("string", ["a"] * 5 + ["b"] * 3)})
    found = added([crowd, few])["columns"]["x"]
    assert found["count"] == 137
    assert found["values"][0] == ["a", 14, None]
    assert "b" not in {value for value, _, _ in found["values"]}
    assert found["distinct"] == 61


def test_a_column_without_values_in_one_part() -> None:
    found = added([made({"x": ("int", [None, None])}), made({"x": ("int", [1, 3])})])["columns"]["x"]
    assert (found["count"], found["nulls"], found["min"], found["mean"]) == (2, 2, 1, 2)
    nothing = added([made({"x": ("int", [None])}), made({"x": ("int", [None])})])["columns"]["x"]
    assert nothing == {"type": "int", "count": 0, "nulls": 2}
    classes = [{**made({"x": ("int", [1])}), "target": {"column": "y", "classes": {"a": 1, "b": n}}} for n in (2, 3)]
    assert added(classes)["target"]["classes"] == {"a": 2, "b": 5}
