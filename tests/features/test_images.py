"""The kind `image`: exact statistics, the form that a table stores, tensors by hand, equal on Spark and on Arrow."""

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import FeatureError
from mlspark.features.check import check
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encode_spark import encode
from mlspark.features.encoder import Encoder
from mlspark.features.explain import explain
from mlspark.features.fit import fit
from mlspark.features.settings import FeaturesSettings
from mlspark.features.shift import ShiftSettings, shift
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.intake import pictures
from mlspark.pictures import decoder
from mlspark.pictures.media import Media
from mlspark.pictures.spec import PictureSpec
from mlspark.tasks.kinds import from_settings

TASK = from_settings({"kind": "binary", "target": "good", "classes": ["no", "yes"]})
CONTRACT = Contract(
    name="photos",
    label="good",
    columns=(
        ColumnRule(name="photo", type="binary", nullable=False, media=Media()),
        ColumnRule(name="age", type="int"),
        ColumnRule(name="good", type="string"),
    ),
)


def declared(*inputs: dict[str, Any]) -> FeaturesSettings:
    return FeaturesSettings.model_validate_json(json.dumps({"inputs": inputs}))


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def photos(count: int, *, side: int = 9) -> list[bytes]:
    """Colourful PNG files of different sizes."""
    random = np.random.default_rng(0)
    sizes = random.integers(side, side + 5, (count, 2))
    return [png(random.integers(0, 256, (height, width, 3), np.uint8)) for height, width in sizes]


def rows_of(files: list[bytes]) -> pa.Table:
    count = len(files)
    return pa.table(
        {
            "photo": files,
            "age": pa.array([place % 7 for place in range(count)], pa.int32()),
            "good": ["yes" if place % 3 else "no" for place in range(count)],
            "row_id": list(range(count)),
        }
    )


BOTH = declared(
    {"kind": "image", "columns": ["photo"], "size": [6, 8]},
    {
        "kind": "image",
        "columns": ["photo"],
        "name": "thumb",
        "size": 4,
        "mode": "L",
        "resize": "crop",
        "store": "pixels",
    },
    {"kind": "number", "columns": ["age"], "scale": "none"},
)


def fitted(spark: SparkSession, rows: pa.Table, settings: FeaturesSettings = BOTH, partitions: int = 2) -> Encoder:
    frame = spark.createDataFrame(rows).repartition(partitions)
    looked, _ = pictures.look(frame, CONTRACT, pictures.declared(settings))
    return fit(looked, settings, TASK, pipeline="photos")


@pytest.fixture(scope="module")
def encoder(spark: SparkSession) -> Encoder:
    return fitted(spark, rows_of(photos(40)))


def test_statistics_are_exact_whatever_the_partitions(spark: SparkSession, encoder: Encoder) -> None:
    photo, thumb, _ = encoder.features
    tensors = np.stack([decoder.encoded(file, photo.spec) for file in photos(40)]).astype(np.float64)
    for channel in range(3):
        values = tensors[:, channel].ravel()
        # Sums of up to 1,920 whole numbers: exact in double precision.
        mean = values.sum() / values.size
        assert photo.spec.mean[channel] == pytest.approx(mean / 255, rel=1e-15)
        variance = (values**2).sum() / values.size - mean**2
        assert photo.spec.std[channel] == pytest.approx(math.sqrt(variance) / 255, rel=1e-12)
    assert len(thumb.spec.mean) == 1
    mixed = rows_of(photos(40)).take(np.random.default_rng(3).permutation(40))
    assert fitted(spark, mixed, partitions=7).to_json() == encoder.to_json()
    assert Encoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


def test_new_pictures_that_are_darker_are_told(spark: SparkSession, encoder: Encoder) -> None:
    dark = [png(np.asarray(Image.open(io.BytesIO(file))) // 4) for file in photos(12)]
    looked, _ = pictures.look(spark.createDataFrame(rows_of(dark)), CONTRACT, pictures.fitted(encoder))
    found = shift(looked, encoder, ShiftSettings())
    for image, names in zip(encoder.images, (("photo.red", "photo.green", "photo.blue"), ("thumb.grey",)), strict=True):
        tensors = np.stack([decoder.encoded(file, image.spec) for file in dark]) / 255
        for channel, name in enumerate(names):
            moved = (tensors[:, channel].mean() - image.spec.mean[channel]) / image.spec.std[channel]
            assert found["columns"][name] == {"mean_shift": pytest.approx(moved)}
            assert any(f"{name}: mean moved by {moved:+.2f} standard deviations" in each for each in found["warnings"])
    looked, _ = pictures.look(spark.createDataFrame(rows_of(photos(40))), CONTRACT, pictures.fitted(encoder))
    assert shift(looked, encoder, ShiftSettings())["warnings"] == []


def test_pictures_are_tensors_of_their_own_beside_the_others(encoder: Encoder) -> None:
    photo, thumb, _ = encoder.features
    tensors = encoder.tensors(TASK)
    assert tensors.specs == (
        TensorSpec("dense", ("age",), "float32"),
        TensorSpec("photo", ("photo",), "uint8", picture=photo.spec),
        TensorSpec("thumb", ("thumb",), "uint8", picture=thumb.spec),
    )
    assert (photo.spec.shape, thumb.spec.shape) == ((3, 6, 8), (1, 4, 4))
    assert photo.spec.decoder == decoder.version()
    assert tensors.pictures == {"photo": photo.spec, "thumb": thumb.spec}
    assert Tensors.from_json(json.loads(json.dumps(tensors.to_json()))) == tensors


def test_spark_and_arrow_give_the_same_pixels(spark: SparkSession, encoder: Encoder) -> None:
    rows = rows_of(photos(40))
    here = ArrowEncoder(encoder).transform(rows)
    looked, _ = pictures.look(spark.createDataFrame(rows), CONTRACT, pictures.fitted(encoder))
    there = encode(looked, encoder, "row_id").orderBy("row_id").toArrow()
    for spec in (image.spec for image in encoder.images):
        assert spec.store == "pixels"
    for name in ("photo", "thumb"):
        stored = np.stack([np.frombuffer(value, np.uint8) for value in there.column(name).to_pylist()])
        np.testing.assert_array_equal(stored.reshape(here[name].shape), here[name])
        assert here[name].dtype == np.uint8
    np.testing.assert_array_equal(there.column("age").to_numpy(), here["dense"][:, 0])
    # By another hand: Pillow alone.
    first = Image.open(io.BytesIO(photos(40)[0])).convert("RGB").resize((8, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(here["photo"][0], np.asarray(first).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("size", "store", "expected"),
    [
        (8, "auto", "pixels"),
        (80, "auto", "encoded"),  # 19,200 bytes beside some 450 of the file
        (80, "pixels", "pixels"),
        (8, "encoded", "encoded"),
    ],
)
def test_what_is_stored_follows_from_the_bytes(spark: SparkSession, size: int, store: str, expected: str) -> None:
    settings = declared({"kind": "image", "columns": ["photo"], "size": size, "store": store, "normalize": False})
    rows = rows_of(photos(12))
    encoder = fitted(spark, rows, settings)
    [photo] = encoder.images
    mean_bytes = sum(map(len, photos(12))) / 12
    assert photo.decision() == {"store": expected, "pixels_bytes": 3 * size**2, "file_bytes": round(mean_bytes, 1)}
    assert (photo.spec.mean, photo.spec.std) == ((), ())
    looked, _ = pictures.look(spark.createDataFrame(rows), CONTRACT, pictures.fitted(encoder))
    stored = encode(looked, encoder, "row_id").orderBy("row_id").toArrow().column("photo").to_pylist()
    if expected == "encoded":
        assert stored == photos(12)
    for value, tensor in zip(stored, ArrowEncoder(encoder).transform(rows)["photo"], strict=True):
        np.testing.assert_array_equal(decoder.from_stored(value, photo.spec), tensor)


def test_each_picture_is_looked_at_once(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    good, cut = photos(2)
    rows = spark.createDataFrame(rows_of([good, cut[: len(cut) // 2], b""]))
    looked, columns = pictures.look(rows, CONTRACT, pictures.declared(BOTH))
    [column] = columns.values()
    found = {row["row_id"]: row[column] for row in looked.select("row_id", column).collect()}
    assert found[0]["rule"] is None
    assert (found[1]["rule"], found[2]["rule"]) == ("media.decodes", "media.bytes")
    assert found[1]["photo"]["pixels"] is found[1]["thumb"]["sums"] is None
    assert len(found[0]["photo"]["pixels"]) == 3 * 6 * 8
    assert found[0]["photo"]["sums"][0] == len(good)
    # What follows takes the struct apart; it is still one call for each row.
    parts = looked.select(F.col(f"{column}.rule"), F.col(f"{column}.photo.pixels"), F.col(f"{column}.thumb.sums"))
    plan = parts._jdf.queryExecution().executedPlan().toString()
    assert plan.count("look_at(") == 1


def test_pictures_of_text_sources_are_base64(spark: SparkSession) -> None:
    [good] = photos(1)
    texts = rows_of([base64.b64encode(good), b"not base64!"])
    texts = texts.set_column(0, "photo", texts.column("photo").cast(pa.string()))
    looked, columns = pictures.look(spark.createDataFrame(texts), CONTRACT, pictures.declared(BOTH))
    first, second = (row[0] for row in looked.orderBy("row_id").select(columns["photo"]).collect())
    assert first["photo"]["sums"][0] == len(good)
    assert second["rule"] is second["photo"]["pixels"] is None  # no picture: the rule `type` says what is wrong


def test_a_picture_that_cannot_be_decoded_is_named(encoder: Encoder) -> None:
    good, cut = photos(2)
    with pytest.raises(FeatureError, match="photo: row 1: png: cannot be decoded"):
        ArrowEncoder(encoder).transform(rows_of([good, cut[: len(cut) // 2]]))


def test_a_picture_is_explained_in_words(encoder: Encoder) -> None:
    photo, thumb, age = explain(encoder, rows_of(photos(1)))
    assert (photo.position, thumb.position, age.position) == ("photo", "thumb", "dense[0]")
    assert photo.meaning == "picture photo in colours, resized to 8 x 6 (bilinear)"
    assert thumb.meaning == "picture photo in grey, resized to cover 4 x 4, its centre cut out (bilinear)"
    assert str(photo.number).startswith("3 x 6 x 8, mean 1")
    assert photo.inputs["photo"].startswith("png ")


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"size": 4}, 'image bare: bare: give the column "media"'),
        ({"size": 4, "columns": ["age"]}, "image age: age: type int, expected a picture: binary"),
        (
            {"size": 4, "columns": ["maybe"]},
            'a picture that is missing has no pixels; give the column "nullable": false',
        ),
        ({"size": 4, "columns": ["joined"]}, "image joined: joined: comes from a join"),
    ],
)
def test_columns_that_are_no_pictures_are_refused(feature: dict[str, Any], message: str) -> None:
    more = (
        ColumnRule(name="bare", type="binary", nullable=False),
        ColumnRule(name="maybe", type="binary", media=Media()),
    )
    contract = CONTRACT.model_copy(update={"columns": (*CONTRACT.columns, *more)})
    settings = declared({"kind": "image", "columns": ["bare"], **feature})
    with pytest.raises(FeatureError) as caught:
        check(settings, TASK, contract, "photos", joined={"joined": "binary"})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"size": 0}, "greater than or equal to 1"),
        ({"size": [4, 9000]}, "less than or equal to 8192"),
        ({"size": 4, "name": "dense"}, "name dense: batches have another tensor of this name"),
        ({"size": 4, "mode": "CMYK"}, "'L', 'RGB' or 'RGBA'"),
        ({}, "Field required"),
    ],
)
def test_settings_that_make_no_tensor_are_refused(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        declared({"kind": "image", "columns": ["photo"], **feature})
    assert message in str(caught.value)


def test_state_of_an_encoder_without_pictures_is_unchanged() -> None:
    spec = TensorSpec("dense", ("age",), "float32")
    assert "picture" not in spec.to_json()
    assert PictureSpec("L", 2, 2).to_json()["mean"] == []
