"""The record of a version's rows against hand arithmetic, and drift of two records against scipy and the raw values."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from scipy.spatial.distance import jensenshannon

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import FeatureError
from mlspark.features import drift
from mlspark.features.distribution import is_whole, kind, values_up_to
from mlspark.features.profile import MAX_VALUES, PERCENTS, profile
from mlspark.tasks.kinds import from_settings

RICH = from_settings({"kind": "binary", "target": "rich", "classes": ["no", "yes"]})
CONTRACT = Contract(
    name="people",
    label="rich",
    columns=(
        ColumnRule(name="age", type="int"),
        ColumnRule(name="wage", type="double"),
        ColumnRule(name="job", type="string"),
        ColumnRule(name="owner", type="boolean"),
        ColumnRule(name="born", type="date"),
        ColumnRule(name="seen", type="timestamp"),
        ColumnRule(name="rich", type="string"),
    ),
)
ROWS = """
    (10, 1.5D, 'b', true, DATE'1970-01-02', TIMESTAMP'1970-01-01 06:30:00', 'no', 'train'),
    (20, double('NaN'), 'a', true, DATE'1969-12-31', TIMESTAMP'1970-01-03 12:15:00', 'yes', 'train'),
    (20, 3.5D, 'b', CAST(NULL AS BOOLEAN), DATE'1970-01-11', CAST(NULL AS TIMESTAMP), 'yes', 'train'),
    (40, CAST(NULL AS DOUBLE), CAST(NULL AS STRING), false, CAST(NULL AS DATE), CAST(NULL AS TIMESTAMP), 'yes', 'test')
"""


@pytest.fixture(scope="module")
def people(spark: SparkSession) -> DataFrame:
    names = "age, wage, job, owner, born, seen, rich, split"
    return spark.sql(f"SELECT * FROM VALUES {ROWS} AS people({names})")


@pytest.fixture(scope="module")
def record(people: DataFrame) -> dict[str, Any]:
    return profile(people, CONTRACT, RICH)


def test_record_counts_rows_labels_and_splits(record: dict[str, Any]) -> None:
    assert {name: record[name] for name in ("format", "rows", "events", "target", "splits")} == {
        "format": 2,
        "rows": 4,
        "events": 3,
        "target": {"column": "rich", "kind": "binary", "event": "yes"},
        "splits": {"test": {"rows": 1, "events": 1}, "train": {"rows": 3, "events": 2}},
    }
    assert list(record["columns"]) == [column.name for column in CONTRACT.columns]


def test_numbers_have_range_moments_quantiles_and_distribution(record: dict[str, Any]) -> None:
    age = dict(record["columns"]["age"])
    quantiles = age.pop("quantiles")
    assert age == {
        "type": "int",
        "count": 4,
        "nulls": 0,
        "min": 10,
        "max": 40,
        "mean": 22.5,
        "std": pytest.approx(math.sqrt(118.75)),  # mean square 625 - 22.5^2
        "points": [[10, 0, 1], [20, 1, 3], [40, 3, 4]],
    }
    expected = np.percentile([10, 20, 20, 40], PERCENTS)
    assert quantiles == {str(percent): pytest.approx(value) for percent, value in zip(PERCENTS, expected, strict=True)}


def test_what_is_not_finite_is_missing(record: dict[str, Any]) -> None:
    wage = record["columns"]["wage"]
    assert (wage["count"], wage["nulls"], wage["min"], wage["max"], wage["mean"]) == (2, 2, 1.5, 3.5, 2.5)


def test_texts_have_categories_with_rows_and_events(record: dict[str, Any]) -> None:
    assert record["columns"]["job"] == {
        "type": "string",
        "count": 3,
        "nulls": 1,
        "nulls_events": 1,
        "distinct": 2,
        "values": [["b", 2, 1], ["a", 1, 1]],
    }
    assert record["columns"]["owner"]["values"] == [["true", 2, 1], ["false", 1, 1]]


def test_dates_and_times_are_days(record: dict[str, Any]) -> None:
    born, seen = record["columns"]["born"], record["columns"]["seen"]
    assert (born["min"], born["max"], born["mean"], born["nulls"]) == (-1, 10, pytest.approx(10 / 3), 1)
    assert born["points"] == [[-1, 0, 1], [1, 1, 2], [10, 2, 3]]
    # The ends to the microsecond, what is between to the hour.
    assert (seen["count"], seen["nulls"]) == (2, 2)
    assert (seen["min"], seen["max"]) == (6.5 / 24, 2 + 12.25 / 24)
    assert seen["points"] == [[6.5 / 24, 0, 1], [2 + 12.25 / 24, 1, 2]]


def test_record_is_json_and_that_of_the_shuffled_rows(people: DataFrame, record: dict[str, Any]) -> None:
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert profile(people.repartition(3).orderBy("wage"), CONTRACT, RICH) == record


def test_rows_without_splits_or_values_have_a_record(people: DataFrame) -> None:
    found = profile(people.where("age = 40").drop("split"), CONTRACT, RICH)
    assert found["splits"] == {}
    assert found["columns"]["born"] == {"type": "date", "count": 0, "nulls": 1}
    assert found["columns"]["job"] == {
        "type": "string", "count": 0, "nulls": 1, "nulls_events": 1, "distinct": 0, "values": []
    }  # fmt: skip
    nothing = profile(people.where("age < 0"), CONTRACT, RICH)
    assert (nothing["rows"], nothing["events"], nothing["splits"]) == (0, 0, {})
    assert {(column["count"], column["nulls"]) for column in nothing["columns"].values()} == {(0, 0)}


def test_many_values_are_counted_though_few_are_named_and_few_points_tell_all(spark: SparkSession) -> None:
    """Also arrays; and of 3,000 skewed numbers the share up to any bound, to within 1 %."""
    columns = {"x": "double", "n": "bigint", "job": "string", "face": "array<float>", "rich": "string"}
    contract = CONTRACT.model_copy(
        update={"columns": tuple(ColumnRule.model_construct(name=name, type=type_) for name, type_ in columns.items())}
    )
    rows = spark.range(3000).selectExpr(
        "exp(pmod(id * 7919, 3000) / 300.0D) - 2.0D AS x",
        "pmod(id * 7919, 60) * pmod(id, 50) AS n",
        "CAST(CAST(sqrt(id) AS INT) AS STRING) AS job",
        "CASE WHEN id >= 5 THEN array(1.0F) END AS face",
        "'no' AS rich",
    )
    found = profile(rows, contract, RICH)["columns"]
    jobs = Counter(str(math.isqrt(number)) for number in range(3000))
    commonest = sorted(jobs, key=lambda job: (-jobs[job], job))[:MAX_VALUES]
    assert found["job"]["distinct"] == len(jobs) == 55
    assert [value[:2] for value in found["job"]["values"]] == [[job, jobs[job]] for job in commonest]
    assert found["job"]["count"] == 3000
    assert found["face"] == {"type": "array<float>", "count": 2995, "nulls": 5}
    expected: dict[str, list[float]] = {
        "x": [math.exp(number / 300) - 2 for number in range(3000)],
        "n": [number * 7919 % 60 * (number % 50) for number in range(3000)],
    }
    for name, values in expected.items():
        bounds = [*np.linspace(min(values) - 1, max(values) + 1, 101), *values[::100]]
        shares = [values_up_to(found[name], bound) / 3000 for bound in bounds]
        actual = [np.mean(np.array(values) <= bound * (1 + 5e-4 * np.sign(bound))) for bound in bounds]
        assert np.abs(np.array(shares) - actual).max() <= 0.0101
        assert len(found[name]["points"]) <= 200
        assert (found[name]["min"], found[name]["max"]) == pytest.approx((min(values), max(values)))


def test_classes_have_their_shares_and_numbers_to_predict_are_columns(people: DataFrame) -> None:
    three = from_settings({"kind": "multiclass", "target": "job", "classes": ["a", "b", "c"]})
    record = profile(people, CONTRACT, three)
    assert record["target"] == {"column": "job", "kind": "multiclass", "classes": {"a": 1, "b": 2, "c": 0}}
    assert record["splits"] == {"test": {"rows": 1}, "train": {"rows": 3}}
    assert record["columns"]["job"]["values"] == [["b", 2, None], ["a", 1, None]]
    assert not {"events", "nulls_events"} & {*record, *record["columns"]["job"]}
    wage = profile(people, CONTRACT, from_settings({"kind": "regression", "target": "wage"}))
    assert wage["target"] == {"column": "wage", "kind": "regression"}
    assert "events" not in wage
    assert wage["columns"]["wage"] == record["columns"]["wage"]
    owner = from_settings({"kind": "binary", "target": "owner", "classes": [False, True]})
    assert profile(people, CONTRACT, owner)["target"]["event"] == "true"  # as contracts and aliases write it
    for other in (record, wage):
        assert "label_rate" not in drift.compare(other, other)


def made(columns: dict[str, tuple[str, list[Any]]], events: int = 0) -> dict[str, Any]:
    """The record of few rows, from Python's own counting: column -> (type, values, None for missing)."""
    found: dict[str, Any] = {}
    for name, (type_, values) in columns.items():
        given = [value for value in values if value is not None]
        found[name] = {"type": type_, "count": len(given), "nulls": len(values) - len(given)}
        counts = Counter(given)
        if kind(type_) == "text":
            named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            found[name] |= {"nulls_events": 0, "distinct": len(named)}
            found[name]["values"] = [[value, rows, 0] for value, rows in named[:MAX_VALUES]]
        elif kind(type_) != "array" and given:
            found[name] |= {"min": min(given), "max": max(given)}
            with np.errstate(over="ignore", invalid="ignore"):
                found[name] |= {"mean": float(np.mean(given)), "std": float(np.std(given))}
            found[name]["quantiles"] = {str(percent): float(np.percentile(given, percent)) for percent in PERCENTS}
            found[name]["points"] = [
                [value, sum(other < value for other in given), sum(other <= value for other in given)]
                for value in sorted(counts)
            ]
    rows = len(next(iter(columns.values()))[1])
    target = {"column": "rich", "kind": "binary", "event": "yes"}
    return {"format": 2, "rows": rows, "target": target, "events": events, "splits": {}, "columns": found}


def numbers_drift(old: list[Any], new: list[Any], type_: str = "int") -> dict[str, Any]:
    found: dict[str, Any] = drift.compare(made({"x": (type_, old)}), made({"x": (type_, new)}))["columns"]["x"]
    return found


def test_a_reference_record_is_that_of_spark(record: dict[str, Any]) -> None:
    reference = made({"age": ("int", [10, 20, 20, 40]), "born": ("date", [1, -1, 10, None])})
    for name in ("age", "born"):
        expected = reference["columns"][name]
        found = record["columns"][name]
        assert found["points"] == expected["points"]
        assert found["quantiles"] == pytest.approx(expected["quantiles"])


def test_psi_and_distance_by_hand() -> None:
    # Shares with half a row more for each of two bins: 3.5/8 and 4.5/8 against 5.5/8 and 2.5/8.
    expected = (5.5 - 3.5) / 8 * math.log(5.5 / 3.5) + (2.5 - 4.5) / 8 * math.log(2.5 / 4.5)
    assert drift.psi([3, 4], [5, 2]) == pytest.approx(expected)
    assert drift.js_distance([1, 0], [0, 5]) == 1.0
    assert drift.js_distance([2, 2], [1, 1]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20))
def test_distance_is_that_of_scipy(bins: list[tuple[int, int]]) -> None:
    old, new = ([bin_[side] for bin_ in bins] for side in (0, 1))
    if sum(old) and sum(new):
        assert drift.js_distance(old, new) == pytest.approx(jensenshannon(old, new, base=2), abs=1e-7)


values = st.lists(st.one_of(st.none(), st.integers(-20, 20)), min_size=1, max_size=100)


@settings(max_examples=300, deadline=None)
@given(values, values)
def test_psi_is_that_of_the_raw_values_at_the_old_deciles(old: list[int | None], new: list[int | None]) -> None:
    given = [[value for value in side if value is not None] for side in (old, new)]
    edges = np.unique(np.percentile(given[0], range(10, 100, 10)) if given[0] else np.empty(0))
    bins = [list(np.bincount(np.searchsorted(edges, side, side="left"), minlength=len(edges) + 1)) for side in given]
    missing = [side.count(None) for side in (old, new)]
    if not all(given):
        bins = [[len(side)] for side in given]
    if any(missing):
        bins = [[*side, nulls] for side, nulls in zip(bins, missing, strict=True)]
    shares = [(np.array(side) + 0.5) / (sum(side) + 0.5 * len(side)) for side in bins]
    expected = float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))
    found = numbers_drift(old, new, "double")
    assert found["psi"] == pytest.approx(expected, abs=1e-9)
    assert found["js_distance"] == pytest.approx(np.nan_to_num(jensenshannon(*bins, base=2)), abs=1e-7)
    assert found["verdict"] == ("large" if expected >= 0.25 else "moderate" if expected >= 0.1 else "stable")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=2)), min_size=1, max_size=80), values)
def test_nothing_drifts_from_itself(texts: list[str | None], numbers: list[int | None]) -> None:
    rows = min(len(texts), len(numbers))
    record = made({"t": ("string", texts[:rows]), "x": ("int", numbers[:rows]), "a": ("array<float>", numbers[:rows])})
    found = drift.compare(record, record)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["label_rate"]["change"] == found["rows"]["change"] == 0
    for column in found["columns"].values():
        assert (column["verdict"], column["psi"], column["js_distance"]) == ("stable", 0, 0)
        assert column["missing_share_change"] == 0
        assert not column.get("mean_shift")
        assert not column.get("unseen", {}).get("values")


def test_unseen_categories_are_named_with_their_share() -> None:
    old, new = made({"t": ("string", ["a", "b", "b", None])}), made({"t": ("string", ["b", "c", "c", "d", None])})
    found = drift.compare(old, new)["columns"]["t"]
    assert found["unseen"] == {"values": [["c", 2], ["d", 1]], "share": 0.6, "is_certain": True}
    # a, b, c, d, missing: 1 2 0 0 1 against 0 1 2 1 1.
    assert found["psi"] == pytest.approx(drift.psi([1, 2, 0, 0, 1], [0, 1, 2, 1, 1]))
    assert found["missing_share_change"] == pytest.approx(0.2 - 0.25)


def test_values_that_one_side_does_not_name_are_compared_together() -> None:
    many = [f"v{number:02}" for number in range(MAX_VALUES + 10) for _ in range(2 if number < MAX_VALUES else 1)]
    few = ["v00"] * 6 + ["v59"] * 3 + ["new"]
    found = drift.compare(made({"t": ("string", many)}), made({"t": ("string", few)}))["columns"]["t"]
    # v59 is among the old rows, but not named: told as not certain, and counted with all others.
    assert found["unseen"] == {"values": [["v59", 3], ["new", 1]], "share": 0.4, "is_certain": False}
    named = [2] * MAX_VALUES, [6] + [0] * (MAX_VALUES - 1)
    assert found["js_distance"] == pytest.approx(jensenshannon([*named[0], 10], [*named[1], 4], base=2))


def test_mean_shift_is_in_old_standard_deviations() -> None:
    assert numbers_drift([0, 2], [3, 3])["mean_shift"] == 2.0
    assert numbers_drift([1, 1], [1, 1])["mean_shift"] == 0.0
    assert numbers_drift([1, 1], [2, 2])["mean_shift"] is None


def test_columns_of_one_side_and_of_another_kind_are_told() -> None:
    old = made({"x": ("int", [1, 2]), "gone": ("int", [1, 2]), "was": ("string", ["1", None]), "same": ("int", [1, 2])})
    new = made(
        {"x": ("double", [1, 2]), "came": ("int", [1, 2]), "was": ("int", [1, 2]), "same": ("int", [None, None])}
    )
    found = drift.compare(old, new)
    assert (found["added"], found["removed"]) == (["came"], ["gone"])
    assert found["columns"]["was"] == {
        "verdict": "retyped", "psi": None, "js_distance": None, "missing_share_change": -0.5
    }  # fmt: skip
    assert found["columns"]["x"]["psi"] == 0
    assert found["columns"]["same"]["js_distance"] == 1.0
    assert [name for name, _ in drift.gravest_first(found)] == ["was", "same", "x"]


def test_label_rate_changes_by_their_difference() -> None:
    old, new = made({"x": ("int", [1, 2, 3, 4])}, events=1), made({"x": ("int", [1, 2])}, events=1)
    assert drift.compare(old, new)["label_rate"] == {"old": 0.25, "new": 0.5, "change": 0.25}


def test_no_rows_are_refused() -> None:
    with pytest.raises(FeatureError, match="the new profile has no rows"):
        drift.compare(made({"x": ("int", [1])}), made({"x": ("int", [])}))


@pytest.mark.parametrize(
    ("type_", "expected", "whole"),
    [
        ("bigint", "number", True),
        ("decimal(10,0)", "number", True),
        ("decimal(10,2)", "number", False),
        ("date", "time", True),
        ("timestamp", "time", False),
        ("boolean", "text", False),
        ("array<float>", "array", False),
    ],
)
def test_kind_of_a_type(type_: str, expected: str, whole: bool) -> None:
    assert (kind(type_), is_whole(type_)) == (expected, whole)


def test_values_between_points_are_spread_over_the_whole_numbers_between() -> None:
    column = {"type": "int", "count": 10, "points": [[0, 0, 2], [4, 8, 10]]}  # 6 values among 1, 2, 3
    assert [values_up_to(column, bound) for bound in (-1, 0, 1, 2.5, 3, 4, 9)] == [0, 2, 4, 6, 8, 10, 10]
    assert [values_up_to(column, bound, below=True) for bound in (0, 1, 4, 4.5)] == [0, 2, 8, 10]
    column["type"] = "double"
    assert [values_up_to(column, bound) for bound in (0, 1, 2, 4)] == [2, 3.5, 5, 10]
