"""Raw rows in, predictions out, anywhere."""

import random
from typing import Any

import pyarrow as pa
import pytest

from mlspark.errors import ContractError
from mlspark.scoring.predictor import Predictor

from ..conftest import imported_by
from ..registry.example import BIG, package, rows
from .rest_server import RECORD


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_predictions_are_the_columns_of_the_task(kind: str) -> None:
    predictor = Predictor(package(kind))
    predictions = predictor.predict(rows({}, {"small": 7}))
    assert list(predictions) == list(predictor.task.prediction_types)
    assert all(len(values) == 2 for values in predictions.values())


def test_prediction_follows_the_threshold_of_the_task() -> None:
    [probability] = Predictor(package()).predict(rows())["probability"]
    for threshold, expected in ((probability, "yes"), (probability + 1e-9, "no")):
        predictions = Predictor(package(threshold=float(threshold))).predict(rows())
        assert (predictions["probability"][0], predictions["prediction"][0]) == (probability, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"small": None}, r"small.*null"),
        ({"small": -1}, r"small.*min"),
        ({"text": "pink"}, r"text.*allowed.*pink"),
        ({"real": float("inf")}, r"real.*finite"),
        ({"number": 5, "small": 105}, r"small_is_less"),
        ({"vector": [1.0]}, r"vector.*min_length"),
    ],
)
def test_bad_row_is_refused_with_column_and_rule(change: dict[str, object], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Predictor(package()).predict(rows({}, change))


def test_nan_is_a_missing_value_of_a_row() -> None:
    predictor = Predictor(package())
    assert predictor.predict(rows({"real": float("nan")})) == predictor.predict(rows({"real": None}))


def test_column_that_joins_gave_in_training_is_an_input() -> None:
    predictor = Predictor(package())
    first, second = predictor.predict(rows({}, {"events_mean": 9.5}))["probability"]
    assert first != second
    with pytest.raises(ContractError, match="events_mean"):
        predictor.predict(rows().drop_columns(["events_mean"]))


def test_label_and_other_columns_are_ignored() -> None:
    predictor = Predictor(package())
    labelled = rows().append_column("label", pa.array(["no such class"])).append_column("more", pa.array([1]))
    assert predictor.predict(labelled) == predictor.predict(rows())


def test_neighbouring_whole_numbers_that_no_double_tells_apart_are_told_apart() -> None:
    first, second = Predictor(package()).predict(rows({"big": BIG}, {"big": BIG - 1}))["probability"]
    assert first != second


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_row_of_json_has_the_same_bits_alone_and_among_many(kind: str) -> None:
    """Alone it passes without Arrow, see `check_plain`; among many it does not."""
    draw, predictor = random.Random(1), Predictor(package(kind))
    values: dict[str, list[Any]] = {
        "small": [0, 5, 5.0, -1, 32767, None],
        "number": [0, -3, 2**31 - 1, 2**31, None],
        "big": [BIG, BIG - 1, 2**63 - 1, None],
        "single": [0.1, 1, 1e-45, 3e38, -1e300, None],
        "real": [0.1, -1e300, 999, 1000.5, None],
        "text": ["red", "green", "pink", None],
        "flag": [True, False, 1, None],
        "day": ["2024-02-29", "1999-01-01", None],
        "amount": [12, "12.34", None],
        "events_mean": [2.5, -1e200, None],
    }
    made = [RECORD | {name: draw.choice(of_column) for name, of_column in values.items()} for _ in range(100)]
    made += [RECORD | {name: value} for name, of_column in values.items() for value in of_column]
    together, num_good = predictor.judge(made), 0
    for place, row in enumerate(made):
        alone = predictor.judge([row])
        assert [each.moved(place) for each in alone.broken] == [each for each in together.broken if each.row == place]
        assert alone.rows.equals(together.rows.slice(place, 1))
        if len(alone.good):
            [at] = (together.good == place).nonzero()[0]
            for name, of_row in alone.predictions.items():
                assert of_row.tobytes() == together.predictions[name][at : at + 1].tobytes()
            num_good += 1
    assert num_good > 15


def test_no_rows_give_no_predictions() -> None:
    assert len(Predictor(package()).predict(rows().slice(0, 0))["probability"]) == 0


def test_serving_loads_neither_spark_nor_delta_nor_petastorm_nor_mlflow() -> None:
    imported = imported_by("mlspark.scoring.mlflow_model", "mlspark.engines.engine")
    assert not {"pyspark", "py4j", "delta", "deltalake", "petastorm", "mlflow"} & imported


def test_row_whose_output_is_no_number_is_refused_with_the_column_that_is_out() -> None:
    """Before, its probability was NaN and its prediction a class, without a word."""
    predictor = Predictor(package())
    given = rows({}, {"real": -1e300}, {"small": 7})
    with pytest.raises(
        ContractError, match=r"real\.output: the model's output is (nan|-?inf) for row 1, .*`min` and a `max`"
    ):
        predictor.predict(given)
    verdicts = predictor.judge(given)
    assert [(each.row, each.column, each.rule, each.value) for each in verdicts.broken] == [
        (1, "real", "output", -1e300)
    ]
    assert verdicts.good.tolist() == [0, 2]
    alone = predictor.predict(rows({}, {"small": 7}))
    assert verdicts.predictions["probability"].tolist() == alone["probability"].tolist()
