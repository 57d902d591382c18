"""The encoder: fitted numbers by hand, independent of order and partitions, equal on Spark and Arrow."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from mlspark.config import FeaturesSettings, LabelSettings, NumericFeature
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import FeatureError
from mlspark.features import arrow
from mlspark.features import spark as features
from mlspark.features.encoder import Encoder

SETTINGS = FeaturesSettings(
    label=LabelSettings(column="rich", positive=("yes",), negative=("no",)),
    numeric=(NumericFeature(column="age"), NumericFeature(column="gain", log=True), NumericFeature(column="flat")),
    categorical=("job", "town"),
    min_count=2,
)
SCHEMA = "age int, gain double, flat double, job string, town string, rich string"
ROWS = [
    (20, 0.0, 7.0, "nurse", "Zürich", "yes"),
    (30, None, 7.0, "nurse", "Zürich", "no"),
    (None, 100.5, 7.0, "cook", None, "no"),
    (41, 3.25, None, None, "Àvila", "no"),
    (20, 0.0, 7.0, "nurse", "Àvila", "yes"),
]


def test_fitted_numbers_are_those_of_hand_arithmetic(spark: SparkSession) -> None:
    encoder = features.fit(spark.createDataFrame(ROWS, SCHEMA), SETTINGS, pipeline="people")
    age, gain, flat = encoder.numeric
    assert (age.count, age.nulls, age.mean) == (4, 1, 27.75)
    assert age.std == pytest.approx(math.sqrt((7.75**2 * 2 + 2.25**2 + 13.25**2) / 4), rel=1e-12)
    logs = [math.log1p(value) for value in (0.0, 100.5, 3.25, 0.0)]
    assert gain.mean == pytest.approx(sum(logs) / 4, rel=1e-8)
    assert gain.std == pytest.approx(np.std(logs), rel=1e-8)
    assert (flat.mean, flat.std, flat.nulls) == (7.0, 1.0, 1)
    job, town = encoder.categorical
    assert (job.values, job.counts, job.nulls, job.rare) == (("nurse",), (3,), 1, 1)
    assert (town.values, town.counts, town.nulls) == (("Zürich", "Àvila"), (2, 2), 1)
    assert encoder.layout.cardinalities == (3, 4)


def test_encoder_does_not_depend_on_row_order_or_partitions(spark: SparkSession) -> None:
    values = np.random.default_rng(0)
    rows = [
        (int(values.integers(0, 99)), float(values.lognormal(3, 2)), 0.1 * int(values.integers(0, 9)), "a", "b", "no")
        for _ in range(2000)
    ]
    frames = [spark.createDataFrame(rows, SCHEMA), spark.createDataFrame(rows[::-1], SCHEMA).repartition(7)]
    first, second = (features.fit(frame, SETTINGS, pipeline="people").fingerprint for frame in frames)
    assert first == second


def test_json_round_trip_is_the_identity(spark: SparkSession) -> None:
    encoder = features.fit(spark.createDataFrame(ROWS, SCHEMA), SETTINGS, pipeline="people")
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again == encoder
    assert again.fingerprint == encoder.fingerprint
    with pytest.raises(FeatureError, match="encoder of format 0, expected 1"):
        Encoder.from_json({**encoder.to_json(), "format": 0})


def test_no_training_rows_are_refused(spark: SparkSession) -> None:
    with pytest.raises(FeatureError, match="people: no training rows to fit on"):
        features.fit(spark.createDataFrame([], SCHEMA), SETTINGS, pipeline="people")


def test_column_without_any_value_becomes_zero(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(None, None, None, None, None, "no")] * 2, SCHEMA)
    encoder = features.fit(frame, SETTINGS, pipeline="people")
    assert [number.count for number in encoder.numeric] == [0, 0, 0]
    assert frame.select(*features.transform(encoder)).first() == (0.0, 0.0, 0.0, 0, 0)


@pytest.fixture(scope="module")
def fitted(spark: SparkSession) -> Encoder:
    return features.fit(spark.createDataFrame(ROWS, SCHEMA), SETTINGS, pipeline="people")


INTS = st.none() | st.integers(-(2**31), 2**31 - 1) | st.integers(0, 100)
DOUBLES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-0.0, 5e-324, 100.5])
TEXTS = st.none() | st.sampled_from(["nurse", "cook", "Zürich", "Àvila", "", " nurse", "🙂"]) | st.text(max_size=4)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(INTS, DOUBLES, DOUBLES, TEXTS, TEXTS), min_size=1, max_size=60))
def test_spark_and_arrow_give_the_same_numbers(spark: SparkSession, fitted: Encoder, rows: list[tuple]) -> None:
    rows = [tuple(_sendable(value) for value in row) for row in rows]
    frame = spark.createDataFrame([(*row, "no") for row in rows], SCHEMA)
    on_spark = np.array(frame.select(*features.transform(fitted)).collect(), dtype=np.float64)
    types = [pa.int32(), pa.float64(), pa.float64(), pa.string(), pa.string()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    dense, categorical = arrow.transform(fitted, pa.table(columns, names=["age", "gain", "flat", "job", "town"]))
    np.testing.assert_array_equal(on_spark[:, 3:], categorical)
    bits = on_spark[:, :3].astype(np.float32)
    np.testing.assert_array_equal(bits[:, [0, 2]], dense[:, [0, 2]])
    np.testing.assert_array_max_ulp(bits[:, 1], dense[:, 1], maxulp=1)  # log1p of two libraries


def _sendable(value: object) -> object:
    """Strings that py4j can carry: no lone surrogates."""
    return value.encode("utf-8", "ignore").decode() if isinstance(value, str) else value


CONTRACT = Contract(
    name="people",
    label="rich",
    columns=(
        ColumnRule(name="age", type="int"),
        ColumnRule(name="job", type="string"),
        ColumnRule(name="rich", type="string", allowed=("no", "yes")),
    ),
)
LABEL = LabelSettings(column="rich", positive=("yes",), negative=("no",))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"numeric": (NumericFeature(column="wage"),)},
            "numeric wage: not a column of contract people (age, job, rich)",
        ),
        ({"numeric": (NumericFeature(column="job"),)}, "numeric job: type string, expected a number"),
        ({"categorical": ("age",)}, "categorical age: type int, expected string"),
        ({"categorical": ("job", "job")}, "job: declared twice"),
        ({"categorical": ("rich",)}, "rich: declared twice"),
        ({"label": LABEL.model_copy(update={"column": "job"})}, "label job: the contract's label is rich"),
    ],
)
def test_features_that_the_contract_cannot_give_are_refused(declared: dict, message: str) -> None:
    with pytest.raises(FeatureError, match="pipeline people: features: ") as refused:
        features.check(FeaturesSettings(**{"label": LABEL, **declared}), CONTRACT, "people")
    assert message in str(refused.value)
