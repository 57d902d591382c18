"""Slices beside figures of their rows alone, and gaps counted by hand."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mlspark.errors import ConfigError
from mlspark.evaluation import slices
from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.slices import MISSING, OTHERS, ColumnSlices, Judged
from tests.evaluation.two_models import BINARY, NUMBER, kept

ROWS = 300


def by(
    column: list[Any], task: Any = BINARY, metric: str = "accuracy", **options: Any
) -> tuple[ColumnSlices, list[Predictions]]:
    first, second, _ = kept(task, len(column), **options)
    versions = [Judged("a", task, first), Judged("b", task, second)]
    found = slices.by_slice("column", column, versions, metric=metric, confidence=0.95, resamples=200, seed=1)
    return found, [first, second]


def test_slices_have_the_figures_of_their_rows() -> None:
    column = ["x", "y", "z"] * (ROWS // 3)

    found, rows = by(column)

    assert [(each.value, each.num_rows) for each in found.slices] == [("x", 100), ("y", 100), ("z", 100)]
    p_values = []
    for each in found.slices:
        is_in = np.array(column) == each.value
        target = rows[0].target[is_in]
        predicted = [expit(of.outputs[is_in, 0]) >= 0.5 for of in rows]
        for figure, rates, guess in zip(each.figures, each.rates, predicted, strict=True):
            assert figure.value == pytest.approx(sklearn_metrics.accuracy_score(target, guess), abs=1e-9)
            assert figure.interval is not None
            assert figure.interval[0] < figure.value < figure.interval[1]
            assert rates.selected == pytest.approx(guess.mean(), abs=1e-9)
            assert rates.recall == pytest.approx(sklearn_metrics.recall_score(target, guess), abs=1e-9)
            assert rates.fall_out == pytest.approx(1 - sklearn_metrics.recall_score(1 - target, ~guess), abs=1e-9)
        right = [guess == (target == 1) for guess in predicted]
        table = [[int(((right[0] == a) & (right[1] == b)).sum()) for b in (True, False)] for a in (True, False)]
        p_values.append(mcnemar(table, exact=True).pvalue)
        assert each.differences[0].difference == pytest.approx(right[1].mean() - right[0].mean(), abs=1e-9)
    expected = multipletests(p_values, method="holm")[1]
    assert [each.adjusted[0] for each in found.slices] == pytest.approx(list(expected), abs=1e-9)
    worst = [min(found.slices, key=lambda each: each.figures[place].value or 0).value for place in (0, 1)]
    assert list(found.worst) == worst


def test_gaps_are_the_greatest_differences_of_rates() -> None:
    found, _ = by(["x", "y", "z"] * (ROWS // 3))

    for place in (0, 1):
        rates = [each.rates[place] for each in found.slices]
        selected, true, false = ([getattr(each, name) for each in rates] for name in ("selected", "recall", "fall_out"))
        assert found.parity[place].value == pytest.approx(max(selected) - min(selected), abs=1e-9)
        assert found.odds[place].value == pytest.approx(max(max(true) - min(true), max(false) - min(false)), abs=1e-9)
        for gap in (found.parity[place], found.odds[place]):
            assert gap.low is not None
            assert gap.high is not None
            assert gap.value is not None
            assert 0 <= gap.low <= gap.value <= gap.high <= 1


def test_small_slices_are_shown_and_not_judged() -> None:
    column = ["large"] * 200 + ["medium"] * 71 + ["small"] * 29

    found, _ = by(column)

    assert [each.is_judged for each in found.slices] == [True, True, False]
    assert set(found.worst) <= {"large", "medium"}
    large, medium = (each.rates[0].selected for each in found.slices[:2])
    assert large is not None
    assert medium is not None
    assert found.parity[0].value == pytest.approx(abs(large - medium), abs=1e-9)
    alone, _ = by(["only"] * 50)
    assert alone.parity[0] == (None, None, None)


def test_weights_count_in_slices() -> None:
    first, second, _ = kept(BINARY, ROWS, is_weighted=True)
    column = ["x", "y"] * (ROWS // 2)
    versions = [Judged("a", BINARY, first), Judged("b", BINARY, second)]
    found = slices.by_slice("column", column, versions, metric="accuracy", confidence=0.95, resamples=100, seed=1)
    assert first.weight is not None
    is_x = np.array(column) == "x"
    guess = first.outputs[is_x, 0] >= 0
    expected = np.average(guess == (first.target[is_x] == 1), weights=first.weight[is_x])
    assert found.slices[0].figures[0].value == pytest.approx(expected, abs=1e-9)
    assert found.slices[0].rates[0].selected == pytest.approx(np.average(guess, weights=first.weight[is_x]), abs=1e-9)


def test_numbers_have_the_largest_error_as_worst_and_no_rates() -> None:
    found, rows = by(["x", "y"] * (ROWS // 2), NUMBER, "mae")
    errors = np.abs(1.0 + 2.0 * rows[0].outputs[:, 0] - rows[0].target)
    assert found.worst[0] == ("x" if errors[::2].mean() > errors[1::2].mean() else "y")
    assert (found.parity, found.slices[0].rates) == ((), ())


@pytest.mark.parametrize(
    ("values", "names", "places"),
    [
        (["b", None, "a"], ["a", "b", MISSING], [1, 2, 0]),
        ([3, 1, 2, 3], ["1", "2", "3"], [2, 0, 1, 2]),
        ([True, False], ["false", "true"], [1, 0]),
        ([2.5, float("nan")], ["2.5", MISSING], [0, 1]),
        (list(range(16)), ["up to 3", "above 3 to 7", "above 7 to 11", "above 11"], [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4),
        ([0] * 50 + list(range(1, 14)), ["up to 0", "above 0"], [0] * 50 + [1] * 13),
        ([*range(12), *[20] * 88], ["up to 11", "above 11"], [0] * 12 + [1] * 88),
        ([None, None], [MISSING], [0, 0]),
    ],
)  # fmt: skip
def test_values_are_slices_and_many_numbers_are_bands(values: list[Any], names: list[str], places: list[int]) -> None:
    found_places, found_names = slices.places_of(values)
    assert (found_names, found_places.tolist()) == (names, places)


def test_rare_values_of_many_are_one_slice() -> None:
    values = [f"v{place:03d}" for place in range(60)] + [f"v{place:03d}" for place in range(10, 60)]
    places, names = slices.places_of(values)
    assert len(names) == slices.MOST_SLICES + 1
    assert names[-1] == OTHERS
    # v000 to v009 are there once; of equal counts the later ones are left, v050 to v059, which are there twice.
    assert int((places == slices.MOST_SLICES).sum()) == 30


def test_an_unknown_metric_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="--metric=rmse: a binary task has no such metric; choose one of accuracy"):
        by(["x"] * 40, metric="rmse")
