"""A further kind of feature is one class declared, one class fitted and a line in KINDS; target encoding by kind of task."""

import json
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import compute as pc
from pydantic import ValidationError
from pyspark.sql import SparkSession

from mlspark.errors import FeatureError
from mlspark.features import hashing
from mlspark.features.counts import Counts, Number
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encode_spark import encode
from mlspark.features.encoder import Encoder
from mlspark.features.explain import explain
from mlspark.features.fit import fit
from mlspark.features.kinds import KINDS
from mlspark.features.kinds.buckets import Bucketed
from mlspark.features.kinds.frequency import Frequency
from mlspark.features.kinds.index import Indexed
from mlspark.features.kinds.kind import TEXT, Declared, Encode, Fitted, Kind, Output, Use
from mlspark.features.kinds.number import Ranked
from mlspark.features.kinds.numbers import NumberStatistics
from mlspark.features.kinds.one_hot import OneHot
from mlspark.features.kinds.sql_text import SqlSteps, array
from mlspark.features.settings import FeaturesSettings
from mlspark.sql_literals import sql_text
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.task import Task

RICH = from_settings({"kind": "binary", "target": "rich", "classes": ["no", "yes"]})


class LengthFeature(Declared):
    """One float: the length of a text, as a share of the longest in the training rows; 0 where it is missing."""

    kind: Literal["length"]

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys(self.columns, TEXT)

    def question(self, source: tuple[str, ...], types: Mapping[str, str]) -> Number:
        return Number(f"CAST(char_length(`{source[0]}`) AS DOUBLE)", step=1.0)

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Length":
        return Length(name=name, column=source[0], longest=counts.numbers[name].max or 1.0)


class Length(Fitted):
    kind: Literal["length"] = "length"
    column: str
    longest: float

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (Output(self.name, self.name, f"length of {self.column} over {self.longest:g}"),)

    def to_sql(self, steps: SqlSteps) -> list[str]:
        return [f"CAST(coalesce(char_length(`{self.column}`) / {self.longest}D, 0.0D) AS FLOAT)"]

    def on_arrow(self) -> Encode:
        def lengths(rows: pa.Table) -> list[Any]:
            return [pc.fill_null(pc.utf8_length(rows.column(self.column)), 0).to_numpy() / self.longest]

        return lengths


@pytest.fixture
def with_length(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setitem(KINDS, "length", Kind(LengthFeature, (Length,)))
        FeaturesSettings.model_rebuild(force=True)
        Encoder.model_rebuild(force=True)
        yield
    FeaturesSettings.model_rebuild(force=True)
    Encoder.model_rebuild(force=True)


def declared(*inputs: dict[str, Any]) -> FeaturesSettings:
    return FeaturesSettings.model_validate_json(json.dumps({"inputs": inputs}))


@pytest.mark.usefixtures("with_length")
def test_a_further_kind_is_one_file_and_one_line(spark: SparkSession) -> None:
    rows = pa.table({"town": ["Zürich", None, "Rom"], "rich": ["yes", "no", "no"]})
    frame = spark.createDataFrame(rows)
    settings = declared({"kind": "length", "columns": ["town"]}, {"kind": "index", "columns": ["town"], "name": "id"})
    fitted = fit(frame, settings, RICH, pipeline="people")
    encoder = Encoder.from_json(json.loads(json.dumps(fitted.to_json())))
    assert encoder == fitted
    assert encoder.features[0] == Length(name="town", column="town", longest=6.0)
    tensors = ArrowEncoder(encoder).transform(rows)
    assert tensors["dense"].tolist() == [[1.0], [0.0], [0.5]]
    on_spark = encode(frame, encoder).toArrow()
    np.testing.assert_array_equal(on_spark.column("town").to_numpy(), tensors["dense"][:, 0])
    np.testing.assert_array_equal(on_spark.column("id").to_numpy(), tensors["ids"][:, 0])
    first, second = explain(encoder, rows.slice(2))
    assert (first.position, first.number, first.meaning) == ("dense[0]", 0.5, "length of town over 6")
    assert (second.position, second.number, second.inputs) == ("ids[0]", 2, {"town": "Rom"})


def test_an_unknown_kind_is_refused_by_the_kinds_there_are() -> None:
    with pytest.raises(ValidationError, match=r"'number', 'buckets', .*'vector'"):
        declared({"kind": "length", "columns": ["town"]})


def test_literals_are_the_texts_they_stand_for(spark: SparkSession) -> None:
    texts = ["it's", "back\\slash", "${spark.app.name}", "🙂\n\u001f", '%_$`{}"', ""]
    row = spark.range(1).selectExpr(*(sql_text(text) for text in texts), array(texts, "string")).first()
    assert row is not None
    assert list(row)[:-1] == texts
    assert row[-1] == texts


TOWNS = ["a", "bb", "a", "bb", None, "a"] * 20


def test_a_target_of_three_classes_gives_the_share_of_each(spark: SparkSession) -> None:
    task = from_settings({"kind": "multiclass", "target": "size", "classes": ["s", "m", "l"]})
    sizes = ["s", "m", "l", "m", "m", "s"] * 20
    rows = pa.table({"town": TOWNS, "size": sizes, "row_id": range(120)})
    frame = spark.createDataFrame(rows)
    settings = declared({"kind": "target", "columns": ["town"], "smooth": 0.0, "folds": 3})
    encoder = fit(frame, settings, task, pipeline="people")
    assert Encoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder
    assert [output.meaning for output in encoder.outputs] == [
        f"share of {value!r} with the same town" for value in ("s", "m", "l")
    ]
    unseen = pa.table({"town": ["a", "bb", None, "c"]})
    dense = ArrowEncoder(encoder).transform(unseen)["dense"]
    # a: s l s; bb: m m; missing: m; all: s 2, m 3, l 1 of 6.
    expected = [[2 / 3, 0, 1 / 3], [0, 1, 0], [0, 1, 0], [2 / 6, 3 / 6, 1 / 6]]
    np.testing.assert_allclose(dense, expected, rtol=1e-6)
    on_spark = encode(spark.createDataFrame(unseen.to_pylist(), "town string"), encoder).toArrow()
    for place, output in enumerate(encoder.outputs):
        np.testing.assert_array_equal(on_spark.column(output.name).to_numpy(), dense[:, place])
    in_training = encode(frame, encoder, "row_id", is_training="true").toArrow().sort_by("row_id")
    own = np.column_stack([in_training.column(output.name).to_numpy() for output in encoder.outputs])
    np.testing.assert_allclose(own.sum(axis=1), 1.0, rtol=1e-6)
    assert np.abs(own - ArrowEncoder(encoder).transform(rows)["dense"]).max() > 1e-4


def test_missing_text_is_no_text_whose_place_is_that_of_null(spark: SparkSession) -> None:
    # Spark's hash of null is its seed.
    names = [f"town {number}" for number in range(1000)]
    met = next(name for name in names if (int(hashing.xxhash64([name])[0]) - hashing.SEED) % 8 == 0)
    assert hashing.perfect_table([met]).places == (hashing.SEED % 8,)
    rows = spark.createDataFrame([(met,), (None,), ("elsewhere",), ("",)], "town string")
    common: dict[str, Any] = {"columns": ("town",), "values": (met,), "counts": (1,), "nulls": 1, "rare": 0}
    index = Indexed(name="index", **common)
    one_hot = OneHot(name="hot", impute=None, has_missing=True, **common)
    share = Frequency(name="share", numbers=(0.5,), missing=0.25, unseen=0.125, **common)
    encoder = Encoder(pipeline="x", rows=2, inputs={"town": "string"}, features=(index, one_hot, share))
    found = [tuple(row) for row in encode(rows.coalesce(1), encoder).collect()]
    assert found == [(2, 1.0, 0.0, 0.5), (0, 0.0, 1.0, 0.25), (1, 0.0, 0.0, 0.125), (1, 0.0, 0.0, 0.125)]


def test_target_encoding_of_numbers_is_refused(spark: SparkSession) -> None:
    task = from_settings({"kind": "regression", "target": "wage"})
    frame = spark.createDataFrame([("a", 1.0, 1)], "town string, wage double, row_id bigint")
    with pytest.raises(
        FeatureError, match=r"people: features: target town: the task is regression.*kind index"
    ) as refused:
        fit(frame, declared({"kind": "target", "columns": ["town"]}), task, pipeline="people")
    assert "task.kind" in str(refused.value)


@pytest.mark.parametrize("num_knots", [1, 2, 32, 33, 36, 100])
def test_place_among_many_knots_is_that_of_bisect(spark: SparkSession, num_knots: int) -> None:
    random = np.random.default_rng(num_knots)
    inner = random.normal(size=num_knots) * 10.0 ** random.integers(-320, 300, num_knots)
    knots = tuple(sorted(inner.tolist()))
    shares = np.sort(random.random(2 * num_knots)).tolist()
    below, upto = (0.0, *shares[2::2]), (*shares[1:-1:2], 1.0)
    common = {"expression": "x", "statistics": NumberStatistics(count=1, nulls=0, mean=0, std=1, min=0, max=1)}
    ranked = Ranked(name="rank", knots=knots, below=below, upto=upto, missing=0.25, indicator=True, **common)
    by_id = Bucketed(name="bucket", edges=knots, into="id", **common)
    one_hot = Bucketed(name="hot", edges=knots, into="one_hot", **common)
    encoder = Encoder(pipeline="x", rows=1, inputs={"x": "double"}, features=(ranked, by_id, one_hot))
    beside = [value for knot in knots for value in np.nextafter(knot, [-np.inf, np.inf]).tolist()]
    extremes = [0.0, -0.0, 5e-324, sys.float_info.max, -sys.float_info.max]
    values = [*knots, *beside, *random.normal(size=50).tolist(), *extremes]
    rows = pa.table({"x": pa.array([*values, None, np.nan, np.inf, -np.inf], pa.float64())})
    found = encode(spark.createDataFrame(rows).coalesce(1), encoder).toArrow()
    ranks = np.array([*map(ranked.of, values), *[0.25] * 4], np.float64).astype(np.float32)
    np.testing.assert_array_equal(found.column("rank").to_numpy().view(np.uint32), ranks.view(np.uint32))
    buckets = [*(bisect_right(knots, value) + 1 for value in values), 0, 0, 0, 0]
    assert found.column("bucket").to_pylist() == buckets
    for bucket in range(num_knots + 2):
        assert found.column(f"hot__{bucket}").to_pylist() == [float(bucket == of_row) for of_row in buckets]
