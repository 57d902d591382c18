"""Pictures that are there more than once are counted by content, and by look where the contract asks for it."""

import hashlib
from typing import Any

from pyspark.sql import SparkSession

from mlspark.contracts import contract
from mlspark.contracts.own_columns import SOURCE_FILE, SPLIT
from mlspark.features.duplicates import duplicates

from ..pictures.corpus import file_of, half, scene


def counted(spark: SparkSession, media: dict[str, Any]) -> dict[str, Any]:
    one, other = (file_of(scene(90, 60, seed=seed), "PNG") for seed in range(2))
    alike = file_of(scene(90, 60), "BMP")  # the same pixels in another file
    sided = [(one, "train", "a"), (one, "test", "b"), (one, "train", "c"), (other, "train", "d"), (alike, "test", "e")]
    good = spark.createDataFrame([*sided, (None, "train", "f")], f"image binary, {SPLIT} string, {SOURCE_FILE} string")
    columns = [{"name": "image", "type": "binary", "media": media}, {"name": "plain", "type": "binary"}]
    return duplicates(good.coalesce(1), contract.from_json({"name": "c", "columns": columns}))


def test_pictures_of_the_same_bytes_and_those_that_look_alike_are_counted(spark: SparkSession) -> None:
    of_image = counted(spark, {"duplicates": "alike"})["image"]
    digest = hashlib.sha256(file_of(scene(90, 60), "PNG")).hexdigest()
    assert of_image["same"] == {
        "rows": 5,
        "different": 3,
        "repeated": 2,
        "on_several_sides": 1,
        "examples": [{"key": digest, "rows": 3, "sides": ["test", "train"], "files": ["a", "c"], "contents": [digest]}],
    }
    alike = of_image["alike"]
    assert (alike["rows"], alike["different"], alike["repeated"], alike["on_several_sides"]) == (3, 2, 1, 1)
    contents = sorted([digest, hashlib.sha256(file_of(scene(90, 60), "BMP")).hexdigest()])
    assert [(row["rows"], row["sides"], row["files"], row["contents"]) for row in alike["examples"]] == [
        (2, ["test", "train"], ["a", "e"], contents)
    ]


def test_pictures_that_cannot_be_decoded_are_not_alike(spark: SparkSession) -> None:
    cut_off = [(half("JPEG")[:-number], "train", "a") for number in range(1, 3)]
    good = spark.createDataFrame(cut_off, f"image binary, {SPLIT} string, {SOURCE_FILE} string").coalesce(1)
    media = {"duplicates": "alike", "decodes": False}
    columns = [{"name": "image", "type": "binary", "media": media}]
    found = duplicates(good, contract.from_json({"name": "c", "columns": columns}))["image"]["alike"]
    assert (found["rows"], found["different"], found["repeated"], found["examples"]) == (0, 0, 0, [])


def test_nothing_is_counted_that_the_contract_does_not_ask_for(spark: SparkSession) -> None:
    assert counted(spark, {"duplicates": "ignore"}) == {}
    assert set(counted(spark, {})["image"]) == {"same"}
