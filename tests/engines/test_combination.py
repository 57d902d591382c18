"""How members' outputs become those of an ensemble, by hand."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import logit, softmax

from mlspark.engines.combination import Combination
from mlspark.tasks.kinds import from_settings

BINARY = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"]})
THREE = from_settings({"kind": "multiclass", "target": "y", "classes": ["a", "b", "c"], "probabilities": "array"})
NUMBER = from_settings({"kind": "regression", "target": "y", "standardise": False})


def of(task: Any, kind: Any = "mean", **parts: Any) -> Combination:
    return Combination(kind, task.link, **parts)


def probability(task: Any, combination: Combination, members: list[Any]) -> Any:
    found = task.predictions(combination.apply(members))
    return found["probability" if task is BINARY else "probabilities"]


def test_the_task_finds_the_mean_of_two_classes_probabilities() -> None:
    members = [logit([[0.9], [0.2]]), logit([[0.5], [0.4]])]
    np.testing.assert_allclose(probability(BINARY, of(BINARY, weights=(0.5, 0.5)), members), [0.7, 0.3], rtol=1e-14)
    np.testing.assert_allclose(probability(BINARY, of(BINARY, weights=(0.25, 0.75)), members), [0.6, 0.35], rtol=1e-14)
    assert BINARY.predictions(of(BINARY, weights=(1.0, 0.0)).apply(members))["probability"] == pytest.approx([0.9, 0.2])


def test_the_task_finds_the_mean_of_many_classes_probabilities() -> None:
    random = np.random.default_rng(0)
    members = [random.normal(size=(50, 3)) * scale for scale in (1, 3, 9)]
    weights = (0.2, 0.3, 0.5)
    expected = sum(weight * softmax(member, axis=1) for weight, member in zip(weights, members, strict=True))
    np.testing.assert_allclose(probability(THREE, of(THREE, weights=weights), members), expected, rtol=1e-12)


def test_outputs_are_finite_however_sure_members_are() -> None:
    sure = [np.array([[800.0]]), np.array([[750.0]])]
    for kind, weights in (("mean", (0.5, 0.5)), ("vote", ())):
        outputs = of(BINARY, kind, weights=weights).apply(sure)
        assert np.isfinite(outputs).all()
        assert outputs > 0
    # log(2 / (exp(-800) + exp(-750)))
    assert of(BINARY, weights=(0.5, 0.5)).apply(sure)[0, 0] == pytest.approx(750 + np.log(2), rel=1e-12)
    apart = [np.array([[0.0, 900.0, 0.0]]), np.array([[0.0, 800.0, 0.0]])]
    for kind, weights in (("mean", (0.5, 0.5)), ("vote", ())):
        assert np.isfinite(of(THREE, kind, weights=weights).apply(apart)).all()


def test_numbers_are_averaged_and_quantiles_in_their_order() -> None:
    members = [np.array([[1.0], [2.0]]), np.array([[3.0], [8.0]])]
    assert of(NUMBER, weights=(0.5, 0.5)).apply(members).tolist() == [[2.0], [5.0]]
    quantiles = [np.array([[3.0, 1.0, 2.0]]), np.array([[1.0, 2.0, 5.0]])]
    assert of(NUMBER, weights=(0.5, 0.5)).apply(quantiles).tolist() == [[1.0, 2.0, 4.0]]


def test_votes_are_counted_and_the_mean_decides_between_equal_ones() -> None:
    # Two of three say yes, though the third is very sure: 2/3.
    members = [logit([[0.6]]), logit([[0.6]]), logit([[0.01]])]
    assert probability(BINARY, of(BINARY, "vote"), members) == pytest.approx(2 / 3, abs=1e-6)
    for sure, predicted in ((0.9, "yes"), (0.6, "no")):
        tied = BINARY.predictions(of(BINARY, "vote").apply([logit([[sure]]), logit([[0.2]])]))
        assert tied["prediction"][0] == predicted
        assert tied["probability"][0] == pytest.approx(0.5, abs=1e-6)
    three = [
        np.log([[0.5, 0.3, 0.2]]),
        np.log([[0.1, 0.8, 0.1]]),
        np.log([[0.4, 0.5, 0.1]]),
        np.log([[0.9, 0.1, 1e-9]]),
    ]
    found = probability(THREE, of(THREE, "vote"), three)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.0]], atol=1e-6)
    assert THREE.predictions(of(THREE, "vote").apply(three))["prediction"][0] == "a"  # 0.475 on average, b 0.425


def test_linear_combinations_are_of_logits_of_all_members() -> None:
    combined = of(BINARY, "linear", coefficients=((0.5, 2.0),), intercepts=(1.0,))
    assert combined.apply([np.array([[2.0]]), np.array([[-1.0]])]).tolist() == [[0.0]]


@pytest.mark.parametrize("task", [BINARY, THREE, NUMBER])
@pytest.mark.parametrize("kind", ["mean", "vote", "linear"])
def test_a_row_alone_has_the_bits_of_the_row_among_others(task: Any, kind: str) -> None:
    if task is NUMBER and kind == "vote":
        pytest.skip("numbers have no classes")
    random, width = np.random.default_rng(1), task.num_outputs
    members = [random.normal(size=(1001, width)).astype(np.float32) for _ in range(3)]
    parts: dict[str, Any] = {
        "mean": {"weights": (0.1, 0.6, 0.3)},
        "vote": {},
        "linear": {
            "coefficients": tuple(map(tuple, random.normal(size=(width, 3 * width)))),
            "intercepts": tuple(random.normal(size=width)),
        },
    }[kind]
    combination = of(task, kind, **parts)
    together = combination.apply(members)
    assert together.dtype == np.float64
    alone = [combination.apply([member[row : row + 1] for member in members]) for row in range(1001)]
    np.testing.assert_array_equal(np.concatenate(alone), together)
    again = Combination.from_json(json.loads(json.dumps(combination.to_json())))
    np.testing.assert_array_equal(again.apply(members), together)
    assert combination.apply([member[:0] for member in members]).shape == (0, width)
