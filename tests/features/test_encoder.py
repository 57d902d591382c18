"""The encoder: fitted numbers by hand, independent of order and partitions, equal on Spark and on Arrow."""

import json
import logging
import math
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from mlspark.contracts.plain_rows import PlainRows
from mlspark.errors import FeatureError
from mlspark.features.counts import fold
from mlspark.features.encode_arrow import ArrowEncoder, columns_from_spark, left_to_spark
from mlspark.features.encode_spark import encode, encoded
from mlspark.features.encoder import Encoder
from mlspark.features.fit import fit
from mlspark.features.kinds.as_is import AsIs
from mlspark.features.kinds.hash import Hashed
from mlspark.features.kinds.index import Indexed
from mlspark.features.kinds.kind import Fitted
from mlspark.features.kinds.sql_text import LARGEST
from mlspark.features.kinds.target import TargetShare
from mlspark.features.settings import FeaturesSettings
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.tasks.kinds import from_settings

RICH = from_settings({"kind": "binary", "target": "rich", "classes": ["no", "yes"]})


def declared(*inputs: dict[str, Any]) -> FeaturesSettings:
    return FeaturesSettings.model_validate_json(json.dumps({"inputs": inputs}))


PEOPLE = declared(
    {"kind": "number", "columns": ["age", "flat"]},
    {"kind": "number", "columns": ["gain"], "log1p": True, "indicator": True},
    {"kind": "index", "columns": ["job", "town"], "min_count": 2},
)
PEOPLE_SCHEMA = "age int, gain double, flat double, job string, town string, rich string, row_id bigint"
PEOPLE_ROWS = [
    (20, 0.0, 7.0, "nurse", "Zürich", "yes", 1),
    (30, None, 7.0, "nurse", "Zürich", "no", 2),
    (None, 100.5, 7.0, "cook", None, "no", 3),
    (41, 3.25, None, None, "Àvila", "no", 4),
    (20, 0.0, 7.0, "nurse", "Àvila", "yes", 5),
]


def test_fitted_numbers_are_those_of_hand_arithmetic(spark: SparkSession) -> None:
    encoder = fit(spark.createDataFrame(PEOPLE_ROWS, PEOPLE_SCHEMA), PEOPLE, RICH, pipeline="people")
    age, flat, gain, job, town = encoder.features
    assert encoder.rows == 5
    assert (age.statistics.count, age.statistics.nulls, age.center) == (4, 1, 27.75)
    assert age.scale == pytest.approx(math.sqrt((7.75**2 * 2 + 2.25**2 + 13.25**2) / 4), rel=1e-12)
    logs = [math.log1p(value) for value in (0.0, 100.5, 3.25, 0.0)]
    assert gain.center == pytest.approx(sum(logs) / 4, rel=1e-8)
    assert gain.scale == pytest.approx(np.std(logs), rel=1e-8)
    assert (flat.center, flat.scale, flat.statistics.nulls) == (7.0, 1.0, 1)
    assert (job.values, job.counts, job.nulls, job.rare) == (("nurse",), (3,), 1, 1)
    assert (town.values, town.counts, town.nulls) == (("Zürich", "Àvila"), (2, 2), 1)
    assert encoder.tensors(RICH) == Tensors(
        (
            TensorSpec("dense", ("age", "flat", "gain", "gain__is_missing"), "float32"),
            TensorSpec("ids", ("job", "town"), "int64", cardinalities=(3, 4)),
        )
    )


# Every operation, on columns of every type.
EVERYTHING = declared(
    {"kind": "number", "columns": ["i", "l", "c", "b"]},
    {"kind": "number", "columns": ["d"], "scale": "none", "impute": "constant", "fill": 2.5, "indicator": True},
    {"kind": "number", "columns": ["d"], "name": "d_log", "log1p": True, "impute": "median", "clip": [None, 1e6]},
    {"kind": "number", "columns": ["d"], "name": "d_root", "power": 0.5, "scale": "robust"},
    {"kind": "number", "columns": ["d"], "name": "d_rank", "scale": "quantile", "clip": [-1e5, 1e6]},
    {"kind": "number", "columns": ["i"], "name": "i_rank", "scale": "quantile", "exact": True, "impute": "mode"},
    {"kind": "number", "columns": ["c"], "name": "c_unit", "scale": "min_max", "impute": "constant", "fill": 3.0},
    {"kind": "number", "expression": "(i + 2.5) / (length(s) - 1) * -c - days(day)", "name": "sum"},
    {"kind": "number", "expression": "d * d / l", "name": "product"},
    {"kind": "buckets", "columns": ["i"], "name": "i_bucket", "edges": [0, 18, 65]},
    {"kind": "buckets", "columns": ["d"], "name": "d_bucket", "quantiles": 5, "into": "one_hot"},
    {"kind": "index", "columns": ["s", "day"], "min_count": 3},
    {"kind": "index", "cross": ["s", "b", "i"], "name": "crossed"},
    {"kind": "one_hot", "columns": ["s"], "name": "s_is"},
    {"kind": "one_hot", "columns": ["t"], "name": "t_is", "impute": "mode", "min_count": 5},
    {"kind": "target", "columns": ["t"]},
    {"kind": "target", "columns": ["s"], "name": "s_share", "smooth": 10, "folds": 3},
    {"kind": "frequency", "columns": ["l"], "name": "l_often"},
    {"kind": "hash", "columns": ["s", "t"], "name": "hashed", "buckets": 8},
    {"kind": "hash", "columns": ["s", "i"], "name": "hashed_id", "buckets": 100, "cross": True, "into": "id"},
    {"kind": "ngrams", "columns": ["t"], "name": "grams", "buckets": 8},
    {"kind": "cyclic", "columns": ["at"], "parts": ["second", "minute", "hour", "day_of_week", "day_of_year"]},
    {"kind": "cyclic", "columns": ["day"], "name": "day_of", "parts": ["day_of_month", "month", "hour"]},
    {"kind": "vector", "columns": ["v"], "size": 2, "indicator": True},
)
LAST_BIT = {"d_log", "d_root"}
"""Features of log1p and power: two libraries, one unit in the last place."""
SCHEMA = pa.schema(
    {
        "i": pa.int32(), "d": pa.float64(), "l": pa.int64(), "c": pa.decimal128(12, 2), "b": pa.bool_(),
        "s": pa.string(), "t": pa.string(), "day": pa.date32(), "at": pa.timestamp("us", "UTC"),
        "v": pa.list_(pa.float32()), "rich": pa.string(), "row_id": pa.int64(),
    }
)  # fmt: skip
TEXTS = ["", "a", " a", "nurse", "Zürich", "🙂x", "it's \\ \u001f\n", "%_$`{}"]
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def random_rows(seed: int, size: int) -> list[tuple[Any, ...]]:
    """Rows of common and extreme values, a tenth of them missing."""
    draw = random.Random(seed)

    def number() -> float:
        special = [0.0, -0.0, 5e-324, -1e-310, 1e300, -1e300, math.inf, -math.inf, math.nan]
        return draw.choice([*special, *(draw.lognormvariate(3, 2) for _ in range(9)), -1e5 * draw.random()])

    makers = (
        lambda: draw.choice([draw.randint(-5, 90), -(2**31), 2**31 - 1, draw.randint(-5, 90), 18]),
        number,
        lambda: draw.choice([draw.randint(-(2**63), 2**63 - 1), 2**53 + 1, draw.randint(0, 9)]),
        lambda: Decimal(draw.randint(-(10**11), 10**11)) / 100,
        lambda: draw.random() < 0.3,
        lambda: draw.choice(TEXTS),
        lambda: draw.choice(["p", "q", f"r{draw.randint(0, 99)}", "ünï"]),
        lambda: draw.choice([date(1970, 1, 1), date(1, 1, 1), date.fromordinal(draw.randint(1, date.max.toordinal()))]),
        lambda: draw.choice(
            [FIRST, LAST, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.uniform(-1e9, 1e9))]
        ),
        lambda: [float(np.float32(draw.random())), draw.choice([1.0, -0.0, 3e38])],
    )
    return [
        (
            *(None if draw.random() < 0.1 else make() for make in makers),
            draw.choice(["yes", "no"]),
            draw.getrandbits(62),
        )
        for _ in range(size)
    ]


def as_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)], SCHEMA
    )


@pytest.fixture(scope="module")
def fitted(spark: SparkSession) -> Encoder:
    return fit(spark.createDataFrame(as_table(random_rows(0, 1500))), EVERYTHING, RICH, pipeline="all")


def test_encoder_does_not_depend_on_row_order_or_partitions(spark: SparkSession, fitted: Encoder) -> None:
    shuffled = spark.createDataFrame(as_table(random_rows(0, 1500)[::-1])).repartition(5)
    assert fit(shuffled, EVERYTHING, RICH, pipeline="all").fingerprint == fitted.fingerprint


def test_json_round_trip_is_the_identity(fitted: Encoder) -> None:
    again = Encoder.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert again.fingerprint == fitted.fingerprint
    with pytest.raises(FeatureError, match="encoder of format 0, expected 3"):
        Encoder.from_json({**fitted.to_json(), "format": 0})
    with pytest.raises(FeatureError, match="not an encoder"):
        Encoder.from_json({**fitted.to_json(), "rows": "many"})


CELLS = (
    st.integers(-(2**31), 2**31 - 1),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.decimals(Decimal("-9999999999.99"), Decimal("9999999999.99"), places=2),
    st.booleans(),
    st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
)
ROWS = st.lists(st.tuples(*(st.none() | cell for cell in CELLS), st.just("no"), st.integers(0, 9)), max_size=15)


@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # each try is a Spark job: no time to look for the smallest example
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=ROWS, seed=st.integers(1, 10_000), order=st.permutations(SCHEMA.names))
def test_spark_and_arrow_give_the_same_bits(
    spark: SparkSession, fitted: Encoder, rows: list[tuple[Any, ...]], seed: int, order: list[str]
) -> None:
    raw = as_table(rows + random_rows(seed, 250))
    on_spark = encode(spark.createDataFrame(raw.select(order)), fitted).toArrow()
    tensors = ArrowEncoder(fitted).transform(raw)
    dense, ids = fitted.tensors(RICH).specs
    feature_of = {output.name: output.feature for output in fitted.outputs}
    for place, name in enumerate(dense.columns):
        ours, theirs = on_spark.column(name).to_numpy(), tensors["dense"][:, place]
        if feature_of[name] in LAST_BIT:
            np.testing.assert_array_max_ulp(ours, theirs, maxulp=1)
        else:
            np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32), name)
        assert np.isfinite(theirs).all(), name
    for place, name in enumerate(ids.columns):
        np.testing.assert_array_equal(on_spark.column(name).to_numpy(), tensors["ids"][:, place], name)
        assert tensors["ids"][:, place].max() < ids.cardinalities[place]
    divided = ArrowEncoder(fitted).transform(from_spark(spark.createDataFrame(raw), fitted), is_from_spark=True)
    np.testing.assert_array_equal(divided["ids"], tensors["ids"])
    for place, name in enumerate(dense.columns):  # logarithms and powers are Spark's, as those of training
        of_training = on_spark.column(name).to_numpy()
        np.testing.assert_array_equal(divided["dense"][:, place].view(np.uint32), of_training.view(np.uint32), name)
    for part in (slice(0, 40), *(slice(row, row + 1) for row in range(20))):
        of_part = ArrowEncoder(fitted).transform(as_plain(raw.to_pylist()[part]))
        for name in ("dense", "ids"):
            assert of_part[name].tobytes() == tensors[name][part].tobytes()


def from_spark(rows: DataFrame, encoder: Encoder) -> pa.Table:
    """Return what a worker gets of rows that it scores."""
    raw, names = columns_from_spark(encoder)
    prepared, outputs = encoded(rows, left_to_spark(encoder))
    columns = [output.alias(name) for name, output in zip(names, outputs, strict=True)]
    return prepared.select(*raw, *columns).toArrow()


def test_what_costs_more_on_its_way_than_encoded_is_left_to_spark() -> None:
    def town(name: str, *columns: str) -> Indexed:
        return Indexed(name=name, columns=columns, values=("a",), counts=(1,), nulls=0, rare=0)

    def hashed(name: str, buckets: int, *columns: str) -> Hashed:
        return Hashed(name=name, columns=columns, cross=False, buckets=buckets, into="floats", signed=True)

    def left(*features: Fitted) -> tuple[list[str], list[str], list[str]]:
        inputs = {"town": "string", "street": "string", "price": "decimal(9,2)", "size": "int"}
        encoder = Encoder(pipeline="x", rows=1, inputs=inputs, features=features)
        return ([each.name for each in left_to_spark(encoder).features], *columns_from_spark(encoder))

    size, price = AsIs(name="size", column="size", ids=3), AsIs(name="price", column="price", ids=0)
    assert left(town("id", "town"), size, price) == (
        ["id", "price"],
        ["size"],
        ["_mlspark_encoded_id", "_mlspark_encoded_price"],
    )
    assert left(town("id", "town"), hashed("few", 4, "town"))[0] == ["id", "few"]
    assert left(town("id", "town"), hashed("many", 5, "town")) == ([], ["town"], [])  # at hand for both then
    both = town("both", "town", "street")
    assert left(both, hashed("many", 5, "town")) == (["both"], ["town"], ["_mlspark_encoded_both"])
    assert left(both, hashed("many", 10, "town", "street")) == ([], ["town", "street"], [])


def as_plain(rows: list[dict[str, Any]]) -> PlainRows:
    """The rows as Python's values, but for columns of types that it has not."""
    values = {name: [row[name] for row in rows] for name in SCHEMA.names}
    of_python = {name: values.pop(name) for name in "idlbst"}
    arrays = {name: pa.array(column, SCHEMA.field(name).type) for name, column in values.items()}
    return PlainRows(SCHEMA, len(rows), of_python, arrays)


def test_values_as_they_are_have_the_same_bits_on_spark_and_on_arrow(spark: SparkSession) -> None:
    """Of decimals and large whole numbers the nearest double, of that the nearest float; none is infinite."""
    cells = {
        "c": pa.array([Decimal("6111780.02"), Decimal("-0.07"), Decimal("1234567890123456.79")], pa.decimal128(18, 2)),
        "l": pa.array([2**53 + 1, -(2**63), 16777217], pa.int64()),
        "d": pa.array([1e300, -1e300, 0.1], pa.float64()),
        "b": pa.array([True, False, True]),
        "i": pa.array([0, 2, 1], pa.int32()),
    }
    inputs = {"c": "decimal(18,2)", "l": "bigint", "d": "double", "b": "boolean", "i": "int"}
    features = tuple(AsIs(name=f"{name}_", column=name, ids=3 if name == "i" else 0) for name in cells)
    encoder = Encoder(pipeline="as_is", rows=3, inputs=inputs, features=features)
    raw = pa.table({**cells, "row_id": pa.array([1, 2, 3], pa.int64())})
    on_spark = encode(spark.createDataFrame(raw), encoder).toArrow()
    tensors = ArrowEncoder(encoder).transform(raw)
    for place, name in enumerate("cldb"):
        expected = np.clip([float(value) for value in cells[name].to_pylist()], -LARGEST, LARGEST).astype(np.float32)
        for found in (on_spark.column(f"{name}_").to_numpy(), tensors["dense"][:, place]):
            np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), name)
    assert on_spark.column("i_").to_pylist() == tensors["ids"][:, 0].tolist() == [0, 2, 1]


def test_numbers_made_of_decimals_are_the_nearest_on_spark_and_on_arrow_and_their_means_exact(
    spark: SparkSession,
) -> None:
    """Arrow's own cast of decimals is off by one unit for many, and a float of a bigint need not be that of its double."""
    draw = random.Random(3)
    cents = [Decimal(611178002) / 100, *(Decimal(draw.randint(-(10**12), 10**12)) / 100 for _ in range(500))]
    fine = [Decimal(draw.randint(-(10**36), 10**36)).scaleb(-30) for _ in cents]
    whole = [2**60 + 2**36 + 1, 2**53 + 1, *(draw.randint(-(2**63), 2**63 - 1) for _ in cents[2:])]
    wide = [1e300, -1e300, *(draw.uniform(-1e9, 1e9) for _ in cents[2:])]
    columns = {
        "cents": (cents, pa.decimal128(14, 2)),
        "fine": (fine, pa.decimal128(38, 30)),
        "whole": (whole, pa.int64()),
    }
    raw = pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()} | {"wide": wide})
    raw = raw.append_column("rich", pa.array(["no"] * len(cents)))
    asked = declared(
        {"kind": "as_is", "columns": ["cents", "fine", "whole", "wide"]},
        *({"kind": "number", "columns": [name], "name": f"{name}_number", "scale": "none"} for name in columns),
        *({"kind": "number", "columns": [name], "name": f"{name}_scaled"} for name in columns),
    )
    frame = spark.createDataFrame(raw)
    encoder = fit(frame, asked, RICH, pipeline="people")
    on_spark, on_arrow = encode(frame, encoder).toArrow(), ArrowEncoder(encoder).transform(raw)["dense"]
    nearest = {name: np.array([float(value) for value in values]) for name, (values, _) in columns.items()}
    most = np.finfo(np.float32).max
    for place, output in enumerate(encoder.outputs):
        bits = on_arrow[:, place].view(np.uint32)
        np.testing.assert_array_equal(on_spark.column(output.name).to_numpy().view(np.uint32), bits, output.name)
        if output.name in nearest or output.name.endswith("_number"):
            expected = nearest.get(output.name.removesuffix("_number"), np.clip(wide, -most, most))
            np.testing.assert_array_equal(expected.astype(np.float32).view(np.uint32), bits, output.name)
    for feature in encoder.features:
        if feature.name.endswith("_scaled"):
            values = nearest[feature.name.removesuffix("_scaled")]
            mean = sum(map(Fraction, values.tolist())) / len(values)
            assert feature.statistics.mean == pytest.approx(float(mean), rel=1e-12, abs=1e-9 * float(np.ptp(values)))


def test_no_training_rows_are_refused(spark: SparkSession) -> None:
    with pytest.raises(FeatureError, match="people: no training rows to fit on"):
        fit(spark.createDataFrame([], PEOPLE_SCHEMA), PEOPLE, RICH, pipeline="people")


def test_columns_without_any_value_become_zeros(spark: SparkSession) -> None:
    empty = pa.table([pa.nulls(3, field.type) for field in SCHEMA], SCHEMA)
    empty = empty.set_column(10, "rich", pa.array(["no"] * 3)).set_column(11, "row_id", pa.array([1, 2, 3]))
    frame = spark.createDataFrame(empty)
    encoder = fit(frame, EVERYTHING, RICH, pipeline="all")
    [row] = encode(frame, encoder).distinct().collect()
    indicators = {"d__is_missing", "v__is_missing", "d_bucket__0", "s_is__is_missing", "t_is__is_missing", "l_often"}
    constants = {"d": 2.5, "c_unit": 3.0, "d_rank": 0.5, "i_rank": 0.5}
    expected = dict.fromkeys(indicators, 1.0) | constants
    assert {name: value for name, value in row.asDict().items() if value} == expected


def test_training_rows_are_encoded_out_of_their_fold(spark: SparkSession) -> None:
    rows = [
        (town, "yes" if (number + len(town)) % 3 == 0 else "no", number) for number, town in enumerate(["a", "bb"] * 30)
    ]
    frame = spark.createDataFrame(rows, "town string, rich string, row_id bigint")
    target = declared({"kind": "target", "columns": ["town"], "smooth": 2, "folds": 4})
    encoder = fit(frame, target, RICH, pipeline="people")
    [looked] = encoder.features
    assert isinstance(looked, TargetShare)
    folds = dict(frame.selectExpr("row_id", f"{fold('row_id', 4)} AS fold").collect())
    assert set(folds.values()) == {0, 1, 2, 3}

    def share(town: str, without: int | None) -> float:
        others = [(each, rich) for each, rich, number in rows if folds[number] != without]
        prior = np.mean([rich == "yes" for _, rich in others])
        positive = [rich == "yes" for each, rich in others if each == town]
        return float((sum(positive) + 2 * prior) / (len(positive) + 2))

    in_training = encode(frame, encoder, "row_id", is_training="true").collect()
    towns = {number: town for town, _, number in rows}
    for row in in_training:
        expected = share(towns[row.row_id], folds[row.row_id])
        assert row.town == pytest.approx(expected, rel=1e-6)
    scored = dict(encode(frame, encoder, "row_id").select("row_id", "town").collect())
    assert scored[0] == pytest.approx(share("a", None), rel=1e-6)
    assert scored[1] == pytest.approx(share("bb", None), rel=1e-6)


def test_fitting_reads_the_rows_twice_at_most(spark: SparkSession) -> None:
    read = spark.sparkContext.accumulator(0)

    def counted(batches: Any) -> Any:
        for batch in batches:
            read.add(batch.num_rows)
            yield batch

    frame = spark.createDataFrame(as_table(random_rows(3, 400)))
    fit(frame.mapInArrow(counted, frame.schema), EVERYTHING, RICH, pipeline="all")
    assert read.value == 2 * 400


def test_only_the_commonest_values_reach_the_driver(spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    many = spark.range(6000).selectExpr(
        "CAST(id % 2000 AS STRING) AS town", "'no' AS rich", "id AS row_id", "CAST(id AS STRING) AS job"
    )
    common = many.where("town < '2'").unionByName(many.where("town = '7'"))
    limited = declared(
        {"kind": "index", "columns": ["town"], "max_values": 5, "min_count": 2},
        {"kind": "frequency", "columns": ["job"]},
    )
    with caplog.at_level(logging.WARNING):
        encoder = fit(many.unionByName(common), limited, RICH, pipeline="people")
    town, job = encoder.features
    assert town.values == ("0", "1", "10", "100", "1000")  # of equally common ones the first by code point
    assert (town.counts, town.rare) == ((6,) * 5, many.unionByName(common).count() - 30)
    assert "feature town: knows 5 of 2,000 values, the others" in caplog.text
    assert len(job.values) == 6000


def test_quantiles_are_those_of_numpy(spark: SparkSession) -> None:
    values = np.random.default_rng(0).lognormal(3, 2, 3001)
    frame = spark.createDataFrame(pa.table({"x": values, "rich": ["no"] * 3001, "row_id": range(3001)}))
    both = declared(
        {"kind": "buckets", "columns": ["x"], "quantiles": 7, "exact": True},
        {"kind": "buckets", "columns": ["x"], "name": "rounded", "quantiles": 7},
    )
    exact, rounded = fit(frame, both, RICH, pipeline="people").features
    expected = np.quantile(values, np.arange(1, 7) / 7)
    np.testing.assert_allclose(exact.edges, expected, rtol=1e-13)
    np.testing.assert_allclose(rounded.edges, expected, rtol=2**-11)


def test_every_output_says_where_it_comes_from(fitted: Encoder) -> None:
    meanings = {output.name: (output.feature, output.meaning) for output in fitted.outputs}
    assert len(meanings) == len(fitted.outputs)
    assert meanings["s_is___a"] == ("s_is", "s is ' a'")
    assert meanings["i_bucket"] == ("i_bucket", "0 missing, then the bucket from 1")
    assert meanings["day_of__month_cos"] == ("day_of", "cos of the month of day")
    assert meanings["d_log"][1].startswith("log(1 + d clipped to [-inf, 1e+06]), minus ")
    assert set(fitted.inputs) == {"i", "d", "l", "c", "b", "s", "t", "day", "at", "v"}
