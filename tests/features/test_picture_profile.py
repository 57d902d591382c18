"""What a profile says of pictures, against Pillow and numpy on the same files, whatever the partitions."""

import base64
import hashlib
import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy.spatial.distance import jensenshannon

from mlspark.contracts import contract as contracts
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE_FILE, SPLIT
from mlspark.features import drift, picture_looks, picture_profile
from mlspark.features.duplicates import duplicates
from mlspark.features.picture_profile import PictureProfile, of_pictures
from mlspark.features.profile import profile
from mlspark.pictures import figures
from mlspark.tasks.kinds import from_settings

from ..pictures.corpus import animation, file_of, half, oriented, scene

CONTRACT = contracts.from_json(
    {
        "name": "c",
        "label": "kind",
        "columns": [
            {"name": "image", "type": "binary", "media": {"duplicates": "alike", "decodes": False}},
            {"name": "kind", "type": "string"},
        ],
    }
)
TASK = from_settings({"kind": "multiclass", "target": "kind", "classes": ["a", "b", "never"]})
GREY = ("1", "L", "LA")


def _files() -> list[bytes]:
    plain = [file_of(scene(60, 40, seed=seed), "JPEG", quality=90) for seed in range(12)]
    return [
        *plain,
        file_of(scene(200, 150), "PNG"),
        file_of(scene(21, 30).quantize(16), "PNG"),
        file_of(scene().convert("L"), "JPEG"),
        file_of(scene().convert("LA"), "PNG"),
        file_of(scene().convert("1"), "PNG"),
        file_of(scene().convert("RGBA"), "WEBP", lossless=True),
        file_of(scene().convert("CMYK"), "JPEG"),
        oriented(6),
        plain[0],
        file_of(scene(60, 40, seed=50), "BMP"),
        file_of(scene(60, 40, seed=50), "PNG"),  # the same pixels
    ]


FILES = _files()
CUT_OFF = half("JPEG")
ROWS = [(data, "b" if place % 3 else "a") for place, data in enumerate(FILES)] + [(CUT_OFF, "b"), (None, "a")]


@pytest.fixture(scope="module")
def good(spark: SparkSession) -> DataFrame:
    rows = [(*row, "test" if place == 20 else "train", f"file {place:02}") for place, row in enumerate(ROWS)]
    return spark.createDataFrame(rows, f"image binary, kind string, {SPLIT} string, {SOURCE_FILE} string")


REFUSED = [
    (animation("GIF"), "image", "media.frames", "gif with 3 pictures, expected 1 to 1", "z"),
    (animation("GIF"), "image", "media.frames", "gif with 3 pictures, expected 1 to 1", "x"),
    (CUT_OFF, "image", "media.decodes", "jpeg: cannot be decoded", "y"),
    (b"", "image", "media.bytes", "0 bytes, expected 1 to 9", "y"),
    (None, "image", "null", None, "y"),
    (None, "", "malformed", "encrypted", "y"),
    (FILES[0], "kind", "allowed", "c", "y"),
    (FILES[0], "", "a_rule_of_rows", "kind = image", "y"),
]
REASONS_COUNTED = {
    "image.media.frames": 2, "image.media.decodes": 1, "image.media.bytes": 1, "image.null": 1, "malformed": 1,
    "kind.allowed": 1, "a_rule_of_rows": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def bad(spark: SparkSession) -> DataFrame:
    rows = []
    for data, column, rule, what, file in REFUSED:
        shown = what
        if column == "image" and data is not None:
            shown = f"sha256:{hashlib.sha256(data).hexdigest()}, {len(data)} bytes: {what}"
        raw = json.dumps({"uri": file, "member": "a/b.gif"} if rule == "media.frames" else {"member": "of a table"})
        rows.append((data, [(column, rule, shown)], file, raw))
    reasons = "array<struct<column:string,rule:string,value:string>>"
    return spark.createDataFrame(rows, f"image binary, {REASONS} {reasons}, {SOURCE_FILE} string, {RAW} string")


@pytest.fixture(scope="module")
def asked(good: DataFrame) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known before the pictures are looked at: the profile and the duplicates."""
    once = good.coalesce(1)
    return profile(once, CONTRACT, TASK, by=SPLIT), duplicates(once, CONTRACT)


def of_good(good: DataFrame, bad: DataFrame, **task: Any) -> dict[str, Any]:
    """The columns where no row is bad, and duplicates are not counted."""
    record = {"target": {}, "columns": {"image": {"count": len(ROWS) - 1, "nulls": 1}, "kind": {}}}
    resolved = from_settings(task)
    contract = CONTRACT
    if resolved.kind == "regression":
        number = contract.column("kind").model_copy(update={"type": "double"})
        contract = contract.model_copy(update={"columns": (contract.columns[0], number)})
    found = of_pictures(record, good, bad, contract, resolved, reasons={"kind.null": 3}, duplicates={})
    pictures = found.record["columns"]["image"]["pictures"]
    assert (pictures["refused"], pictures["duplicates"]) == ({"rows": {}, "examples": []}, {})
    return columns(found)


@pytest.fixture(scope="module")
def found(good: DataFrame, bad: DataFrame, asked: tuple[dict[str, Any], dict[str, Any]]) -> PictureProfile:
    record, repeated = asked
    return of_pictures(
        record, good.coalesce(1), bad.coalesce(1), CONTRACT, TASK, reasons=REASONS_COUNTED, duplicates=repeated
    )


def columns(found: PictureProfile) -> dict[str, Any]:
    return dict(found.record["columns"])


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def channels(data: bytes) -> np.ndarray[Any, Any]:
    """(4, 256): how many pixels of the picture have each value."""
    picture = opened(data)
    grey = picture.convert("L") if picture.mode in GREY else picture.convert("RGB").convert("L")
    bands = [grey] * 3 if picture.mode in GREY else picture.convert("RGB").split()
    return np.stack([np.bincount(np.asarray(band).ravel(), minlength=256) for band in (grey, *bands)])


def test_values_of_pixels_are_those_that_numpy_counts(found: PictureProfile) -> None:
    pictures = columns(found)["image"]["pictures"]
    expected = sum(channels(data) for data in FILES)
    for place, name in enumerate(("grey", "red", "green", "blue")):
        assert pictures["values"][name] == expected[place].tolist()
    assert (pictures["decoded"], pictures["unreadable"]) == (len(FILES), 1)
    brightness = columns(found)["image.brightness"]
    means = [float(np.average(np.arange(256), weights=channels(data)[0])) for data in FILES]
    assert (brightness["count"], brightness["nulls"]) == (len(FILES), 1)
    assert (brightness["min"], brightness["max"]) == pytest.approx((min(means), max(means)))
    assert brightness["mean"] == pytest.approx(np.mean(means))
    assert brightness["quantiles"]["50"] == pytest.approx(np.median(means), rel=1e-3)


def test_what_files_are_is_what_pillow_says(found: PictureProfile) -> None:
    pictures = [opened(data) for data in (*FILES, CUT_OFF)]
    of_columns = columns(found)
    for name, values in {
        "format": [(picture.format or "").lower() for picture in pictures],
        "mode": [picture.mode for picture in pictures],
        "orientation": [str(picture.getexif().get(0x0112, 1)) for picture in pictures],
        "size": ["{} x {}".format(*ImageOps.exif_transpose(opened(data)).size) for data in (*FILES,)] + ["200 x 150"],
    }.items():
        column = of_columns[f"image.{name}"]
        assert {value: rows for value, rows, _ in column["values"]} == Counter(values)
        assert (column["count"], column["nulls"], column["of"]) == (len(pictures), 1, "image")
    sizes = [len(data) for data in (*FILES, CUT_OFF)]
    assert of_columns["image.bytes"]["quantiles"]["50"] == np.median(sizes)
    assert of_columns["image.width"]["max"] == 200
    turned = Counter(picture.size[::-1] for picture in pictures if picture.getexif().get(0x0112) == 6)
    assert turned == {(32, 48): 1}
    assert of_columns["image.height"]["points"][-1][0] == 150
    assert list(of_columns)[:2] == ["image", "image.format"]
    assert list(of_columns)[-1] == "kind"


def test_samples_are_the_first_of_each_class_by_content_and_look_like_the_picture(found: PictureProfile) -> None:
    pictures, thumbnails = columns(found)["image"]["pictures"], found.thumbnails["thumbnails"]
    for label in "ab":
        readable = {
            hashlib.sha256(data).hexdigest() for data, kind in ROWS if data not in (None, CUT_OFF) and kind == label
        }
        assert pictures["samples"][label] == sorted(readable)[: picture_looks.NUM_SAMPLES]
    assert set(pictures["samples"]) == {"a", "b"}
    by_digest = {hashlib.sha256(data).hexdigest(): data for data in FILES}
    shown = {digest for digests in pictures["samples"].values() for digest in digests}
    assert shown <= set(thumbnails)
    for digest in shown:
        made, whole = thumbnails[digest], ImageOps.exif_transpose(opened(by_digest[digest]))
        small = opened(base64.b64decode(made["data"]))
        assert (made["width"], made["height"]) == whole.size
        if max(whole.size) > 64:
            assert (made["media_type"], max(small.size)) == ("image/jpeg", 64)
        else:
            assert (made["media_type"], small.size) == ("image/png", whole.size)
            mode = "L" if whole.mode in GREY else "RGB"
            np.testing.assert_array_equal(np.asarray(small), np.asarray(whole.convert(mode)))


def test_repeated_and_refused_pictures_are_shown(found: PictureProfile) -> None:
    pictures, thumbnails = columns(found)["image"]["pictures"], found.thumbnails["thumbnails"]
    same, alike = pictures["duplicates"]["same"], pictures["duplicates"]["alike"]
    assert (same["repeated"], same["on_several_sides"]) == (1, 1)
    assert same["examples"][0]["contents"] == [hashlib.sha256(FILES[0]).hexdigest()]
    assert alike["examples"]
    for example in (*same["examples"], *alike["examples"]):
        assert set(example["contents"]) <= set(thumbnails)
    refused = pictures["refused"]
    assert refused["rows"] == {
        "media.frames": 2, "media.decodes": 1, "media.bytes": 1, "null": 1, "malformed": 1
    }  # fmt: skip
    examples = {example["rule"]: example for example in refused["examples"]}
    assert list(examples) == ["malformed", "media.bytes", "media.decodes", "media.frames", "null"]
    digest = hashlib.sha256(REFUSED[0][0] or b"").hexdigest()
    assert examples["media.frames"] == {
        "rule": "media.frames",
        "what": "gif with 3 pictures, expected 1 to 1",
        "sha256": digest,
        "bytes": len(REFUSED[0][0] or b""),
        "rows": 2,
        "file": "x: a/b.gif",
    }
    assert (examples["malformed"]["what"], examples["malformed"]["sha256"]) == ("encrypted", None)
    assert examples["null"]["file"] == "y"
    assert digest in thumbnails
    assert hashlib.sha256(CUT_OFF).hexdigest() not in thumbnails


def test_the_same_for_any_number_of_partitions(
    good: DataFrame,
    bad: DataFrame,
    asked: tuple[dict[str, Any], dict[str, Any]],
    found: PictureProfile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(picture_profile, "_TASK_PICTURES", 1)  # none of the seven are put together
    record, repeated = asked
    mixed = good.repartition(7), bad.repartition(3)
    assert of_pictures(record, *mixed, CONTRACT, TASK, reasons=REASONS_COUNTED, duplicates=repeated) == found


def test_of_many_pictures_about_as_many_are_decoded_chosen_by_content_and_events_are_counted(
    good: DataFrame, bad: DataFrame, found: PictureProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_profile, "MAX_DECODED", 10)
    part = of_good(good.coalesce(1), bad, kind="binary", target="kind", classes=["a", "b"])
    pictures = part["image"]["pictures"]
    share = 10 / (len(FILES) + 1)
    chosen = [data for data in FILES if int(hashlib.sha256(data).hexdigest()[:8], 16) < share * 2**32]
    assert 0 < len(chosen) < len(FILES)
    assert pictures["decoded"] == len(chosen)
    assert pictures["values"]["red"] == sum(channels(data)[1] for data in chosen).tolist()
    assert part["image.width"] == columns(found)["image.width"]
    assert pictures["samples"] == columns(found)["image"]["pictures"]["samples"]
    expected = Counter(opened(data).format for data, kind in ROWS if kind == "b" and data)
    assert {value.upper(): events for value, _, events in part["image.format"]["values"]} == {
        name: expected[name] for name in ("JPEG", "PNG", "WEBP", "BMP")
    }


def test_without_classes_there_are_samples_of_all(good: DataFrame, bad: DataFrame) -> None:
    numbers = good.withColumn("kind", F.lit(1.0)).coalesce(1)
    pictures = of_good(numbers, bad, kind="regression", target="kind")["image"]["pictures"]
    first = sorted({hashlib.sha256(data).hexdigest() for data in FILES})[: picture_looks.NUM_SAMPLES]
    assert pictures["samples"] == {"": first}


def test_pictures_drift_by_what_was_measured_of_them(found: PictureProfile) -> None:
    same = drift.compare(found.record, found.record)
    assert same["columns"]["image"]["channels"] == dict.fromkeys(figures.CHANNELS, 0.0)
    assert {column["verdict"] for column in same["columns"].values()} == {"stable"}
    columns_ = columns(found)
    pictures = columns_["image"]["pictures"]
    swapped = {**pictures["values"], "red": pictures["values"]["blue"], "grey": [0] * 256}
    other = {**columns_, "image": {**columns_["image"], "pictures": {**pictures, "values": swapped}}}
    other["image.width"] = columns_["image.bytes"]
    changed = drift.compare(found.record, {**found.record, "columns": other})["columns"]
    expected = jensenshannon(pictures["values"]["red"], pictures["values"]["blue"], base=2)
    assert changed["image"]["channels"] == {"red": pytest.approx(expected), "green": 0.0, "blue": 0.0}
    assert changed["image.width"]["verdict"] == "large"


def test_tables_without_pictures_are_as_they_were(good: DataFrame, bad: DataFrame) -> None:
    plain = CONTRACT.model_copy(update={"columns": (CONTRACT.columns[1],)})
    record = {"columns": {"kind": {}}}
    found = of_pictures(record, good, bad, plain, TASK, reasons={}, duplicates={})
    assert (found.record, found.thumbnails) == (record, {})
