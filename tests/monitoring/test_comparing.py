"""Figures held against limits: by hand, and how often nothing that changed is an alarm."""

import math
from typing import Any

import numpy as np
import pytest

from mlspark.features import drift
from mlspark.features.profile import of_numbers, of_values
from mlspark.monitoring import checks, comparing
from mlspark.monitoring.checks import Check
from mlspark.monitoring.settings import MonitoringSettings
from mlspark.tasks.kinds import from_settings

from ..features.test_profile import made

LIMITS = MonitoringSettings()


def judged(
    old: dict[str, Any], new: dict[str, Any], limits: MonitoringSettings = LIMITS
) -> dict[tuple[str, str], Check]:
    found = checks.judged(comparing.of_columns(old, new, limits, subject="input"), false_alarms=limits.false_alarms)
    return {(check.name, check.measure): check for check in found}


def column(values: list[Any], type_: str = "string") -> dict[str, Any]:
    return made({"x": (type_, values)})


def test_psi_by_hand_and_the_column_is_named() -> None:
    found = judged(column(["a"] * 700 + ["b"] * 300), column(["a"] * 350 + ["b"] * 650))
    psi = found["x", "psi"]
    # Half a row more for each of the two bins.
    olds, news = (700.5 / 1001, 300.5 / 1001), (350.5 / 1001, 650.5 / 1001)
    assert psi.value == pytest.approx(sum((n - o) * math.log(n / o) for o, n in zip(olds, news, strict=True)))
    assert (psi.verdict, psi.limit, psi.rows, psi.level) == ("alarm", 0.25, 1000, 0.01 / 3)
    assert found["x", "missing_change"].verdict == found["x", "unseen_share"].verdict == "fine"
    assert found["x", "missing_change"].p_value is None


def test_a_number_is_binned_at_the_tenths_of_training() -> None:
    found = judged(column(list(range(1000)), "int"), column([value + 500 for value in range(1000)], "int"))
    # Tenths: the five lower ones are empty, the greatest holds half of the rows and its own tenth.
    olds, news = [100.5 / 1005] * 10, [0.5 / 1005] * 5 + [100.5 / 1005] * 4 + [600.5 / 1005]
    expected = sum((n - o) * math.log(n / o) for o, n in zip(olds, news, strict=True))
    assert found["x", "psi"].value == pytest.approx(expected, rel=0.02)  # a bound is one value: 101 rows for 100
    assert found["x", "psi"].verdict == "alarm"


def test_missing_values_either_way() -> None:
    full, holes = column(["a"] * 1000), column(["a"] * 900 + [None] * 100)
    more, fewer = judged(full, holes)["x", "missing_change"], judged(holes, full)["x", "missing_change"]
    assert (more.value, more.old, more.new, more.verdict) == (0.1, 0.0, 0.1, "alarm")
    assert (fewer.value, fewer.verdict) == (-0.1, "alarm")
    assert more.new_interval == pytest.approx((0.0829, 0.1201), abs=1e-4)  # Wilson's


def test_unseen_values_are_named_and_one_of_a_hundred_is_chance() -> None:
    old = column(["a"] * 499 + ["b"] * 500 + ["rare"])
    few = judged(old, column(["a"] * 50 + ["b"] * 49 + ["c"]))["x", "unseen_share"]
    assert (few.value, few.verdict, few.detail) == (0.01, "chance", "'c' (1)")
    many = judged(old, column(["a"] * 48 + ["b"] * 46 + ["c"] * 4 + ["d"] * 2))["x", "unseen_share"]
    assert (many.value, many.verdict, many.detail) == (0.06, "alarm", "'c' (4), 'd' (2)")
    crowd = column([f"v{place}" for place in range(60)] * 20)
    assert ("x", "unseen_share") not in judged(crowd, crowd)  # the record names 50 values: what is new is not known


def test_quarantine_alarms_on_an_increase_alone() -> None:
    def verdict(new: tuple[int, int]) -> str:
        return checks.judged([comparing.of_quarantine((30, 1000), new, {"age.min": 9}, LIMITS)], false_alarms=0.01)[
            0
        ].verdict

    assert [verdict(new) for new in ((60, 1000), (5, 100), (0, 1000), (40, 1000))] == [
        "alarm",
        "chance",
        "fine",
        "fine",
    ]


def test_a_worse_metric_alarms_in_its_own_direction() -> None:
    task = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"]})
    random = np.random.default_rng(0)
    target = (random.random(4000) < 0.3).astype(float)
    good = task.metrics(target * 3 - 1.5 + random.normal(size=4000), target)
    bad = task.metrics(target * 1 - 0.5 + random.normal(size=4000), target)
    for name in ("log_loss", "roc_auc", "accuracy"):
        [worse] = checks.judged(comparing.of_metric(task, name, good, bad, LIMITS), false_alarms=0.01)
        [better] = checks.judged(comparing.of_metric(task, name, bad, good, LIMITS), false_alarms=0.01)
        assert (worse.verdict, better.verdict) == ("alarm", "fine")
        assert worse.value == pytest.approx(abs(bad[name] - good[name]) / good[name])  # type: ignore[operator]
    eight_of_ten = task.metrics([[1.0]] * 3 + [[-1.0]] * 7, [1.0] * 5 + [0.0] * 5)
    [few] = checks.judged(comparing.of_metric(task, "accuracy", good, eight_of_ten, LIMITS), false_alarms=0.01)
    assert few.value > 0.05
    assert few.verdict == "chance"


def test_nothing_changed_is_seldom_an_alarm_and_a_change_is_one() -> None:
    """100 runs of 14 columns each, 100 rows that are drawn as the 30,000 of training were: at most 1 % may alarm.

    By the limits alone over half of them would: rare categories, and the PSI of few rows.
    """
    random = np.random.default_rng(5)
    shares = [random.dirichlet(np.full(size, 0.4)) for size in (2, 2, 5, 6, 7, 9, 14, 15, 16, 41)]
    old: dict[str, Any] = {"rows": 30_000, "columns": {}}
    for place, share in enumerate(shares):
        old["columns"][f"text{place}"] = drawn(random, share, 30_000)
    numbers = random.gamma(2, 20, size=(30_000, 4)).round()
    for place in range(4):
        old["columns"][f"number{place}"] = of_numbers(numbers[:, place])
    alarms, over, shifted = 0, 0, 0
    for run in range(100):
        new = {
            "rows": 100,
            "columns": {f"text{place}": drawn(random, share, 100) for place, share in enumerate(shares)},
        }
        for place in range(4):
            new["columns"][f"number{place}"] = of_numbers(random.gamma(2, 20, size=100).round())
        found = judged(old, new)
        alarms += any(check.verdict == "alarm" for check in found.values())
        over += any(check.verdict == "chance" for check in found.values())
        if run < 10:
            new["columns"]["number0"] = of_numbers(random.gamma(2, 20, size=100).round() + 25)
            shifted += judged(old, new)["number0", "psi"].verdict == "alarm"
    assert over > 60
    assert alarms <= 4  # at most 1 is expected; more than 4 in 4 of 1,000 such tests
    assert shifted == 10


def drawn(random: np.random.Generator, shares: Any, num_rows: int) -> dict[str, Any]:
    rows = random.multinomial(num_rows, shares)
    return of_values({f"value{place}": int(count) for place, count in enumerate(rows)})


def test_records_from_arrays_are_those_of_counting() -> None:
    values = np.random.default_rng(3).normal(size=997).round(2)
    expected = made({"x": ("double", values.tolist())})["columns"]["x"]
    found = of_numbers(values)
    assert found["quantiles"] == pytest.approx(expected["quantiles"])
    assert (found["mean"], found["std"]) == pytest.approx((expected["mean"], expected["std"]))
    whole = {tuple(point) for point in expected["points"]}
    assert len(found["points"]) <= 200
    assert {tuple(point) for point in found["points"]} <= whole
    assert of_numbers(np.array([]))["count"] == 0
    assert drift.psi(*zip(*drift.bins(found, expected), strict=True)) == pytest.approx(0, abs=1e-4)
