"""Scores and labels of each kind of task as records, by hand: whatever the task, both sides are binned alike."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from mlspark.evaluation.predictions import Predictions
from mlspark.features import drift
from mlspark.monitoring import reference
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.task import Task

from ..features.test_profile import made


def task(kind: str, **settings: Any) -> Task:
    return from_settings({"kind": kind, "target": "y", **settings})


GRADES = task("multiclass", classes=[1, 2, 3])
PRICE = task("regression", standardise=False)
MANY = task("multiclass", classes=[f"c{place}" for place in range(25)])


def kept(of: Task, num_rows: int) -> Predictions:
    random = np.random.default_rng(0)
    return Predictions.of(range(num_rows), np.zeros(num_rows), random.normal(size=(num_rows, of.num_outputs)))


def test_scores_of_classes_are_their_probabilities_and_the_class_as_text() -> None:
    rows = kept(GRADES, 50)
    record = reference.record_of_scores(rows, GRADES)
    assert list(record["columns"]) == ["probability_1", "probability_2", "probability_3", "prediction"]
    by_hand = Counter(str(place + 1) for place in rows.outputs.argmax(axis=1))
    assert {value: rows for value, rows, _ in record["columns"]["prediction"]["values"]} == by_hand
    shares = np.exp(rows.outputs) / np.exp(rows.outputs).sum(axis=1, keepdims=True)
    assert record["columns"]["probability_2"]["mean"] == pytest.approx(shares[:, 1].mean())
    # Of many classes, the predicted one alone.
    assert list(reference.record_of_scores(kept(MANY, 50), MANY)["columns"]) == ["prediction"]
    assert list(reference.record_of_scores(kept(PRICE, 50), PRICE)["columns"]) == ["prediction"]


def test_labels_are_compared_as_classes_however_they_are_spelled() -> None:
    binary = task("binary", classes=["no", "yes"], event="no", aliases={"n": "no"})
    training = made({"y": ("string", ["no"] * 3 + ["n"] * 2 + ["yes"] * 5)}, events=5)
    old, new = reference.record_of_labels(training, binary), reference.record_of_targets([1.0, 0.0, 0.0, 0.0], binary)
    assert sorted(old["columns"]["y"]["values"]) == [["no", 5, None], ["yes", 5, None]]
    assert new["columns"]["y"]["values"] == [["yes", 3, None], ["no", 1, None]]
    assert drift.compare(old, new)["columns"]["y"]["psi"] == pytest.approx(drift.psi([5, 5], [1, 3]))
    grades = {"rows": 9, "target": {"classes": {"1": 4, "2": 0, "3": 5}}, "columns": {}}
    assert reference.record_of_labels(grades, GRADES)["columns"]["y"]["values"] == [["3", 5, None], ["1", 4, None]]
    assert reference.record_of_targets([0, 2, 2], GRADES)["columns"]["y"]["values"] == [["3", 2, None], ["1", 1, None]]


def test_numbers_as_labels_are_binned_at_the_tenths_of_training() -> None:
    training = made({"y": ("double", [float(value) for value in range(100)])})
    old, new = reference.record_of_labels(training, PRICE), reference.record_of_targets(np.arange(50.0) * 2, PRICE)
    assert drift.compare(old, new)["columns"]["y"]["psi"] == pytest.approx(0, abs=0.01)
    assert drift.compare(old, reference.record_of_targets(np.arange(50.0), PRICE))["columns"]["y"]["verdict"] == "large"
