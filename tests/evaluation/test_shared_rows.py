"""The rows that two files of predictions have in common, each as often as in both."""

import numpy as np

from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.shared_rows import shared


def test_shared_rows_have_the_same_id_target_and_weight_as_often_as_in_both() -> None:
    """Row 2 is there twice and three times, row 3 has another target, row 4 another weight, 1 and 5 are in one alone."""
    first = Predictions.of([5, 2, 2, 3, 4], [1, 0, 0, 1, 1], [[0.5], [0.2], [0.2], [0.3], [0.4]], [1, 1, 1, 1, 1])
    second = Predictions.of([2, 1, 2, 3, 2, 4], [0, 1, 0, 0, 0, 1], [[9.0]] * 6, [1, 1, 1, 1, 1, 2])
    one, other = shared(first, second)
    assert one.row_id.tolist() == other.row_id.tolist() == [2, 2]
    assert (one.outputs[:, 0].tolist(), other.outputs[:, 0].tolist()) == ([0.2, 0.2], [9.0, 9.0])


def test_of_the_same_rows_all_are_shared_in_one_order() -> None:
    random = np.random.default_rng(0)
    ids, targets, outputs = random.integers(-50, 50, 500), random.integers(0, 3, 500), random.normal(size=(500, 2))
    order = random.permutation(500)
    one, other = shared(
        Predictions.of(ids, targets, outputs), Predictions.of(ids[order], targets[order], -outputs[order])
    )
    assert len(one) == 500
    assert (one.row_id == other.row_id).all()
    assert (one.target == other.target).all()
    assert (np.sort(one.outputs, axis=0) == np.sort(outputs, axis=0)).all()


def test_rows_with_weights_and_rows_without_share_none() -> None:
    rows = Predictions.of([1, 2], [0, 1], [[0.1], [0.2]])
    weighted = Predictions.of([1, 2], [0, 1], [[0.1], [0.2]], [1, 1])
    assert [len(each) for each in shared(rows, weighted)] == [0, 0]
    assert [len(each) for each in shared(Predictions.of([], [], np.empty((0, 1))), rows)] == [0, 0]
