"""Hashes equal Spark's, and every text has a place of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.features.hashing import perfect_table, xxhash64

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def test_hash_is_that_of_spark(spark: SparkSession) -> None:
    texts = [
        "",
        "a",
        "Zürich",
        "🙂",
        "x" * 31,
        "x" * 32,
        "y" * 1000,
        "\0",
        *(chr(number) * 5 for number in range(1, 500)),
    ]
    frame = spark.createDataFrame([(text,) for text in texts], "text string")
    assert [row[0] for row in frame.select(F.xxhash64("text")).collect()] == xxhash64(texts).tolist()


@given(texts=st.sets(TEXTS, max_size=200))
def test_every_text_has_a_place_of_its_own(texts: set[str]) -> None:
    listed = sorted(texts)
    table = perfect_table(listed)
    assert len(set(table.places)) == len(listed)
    assert table.size <= 16 * max(len(listed), 1)
    for text, place in zip(listed, table.places, strict=True):
        hashed = int(xxhash64([text]).view(np.uint64)[0])
        assert place == (hashed >> table.shifts[hashed & (len(table.shifts) - 1)]) & (table.size - 1)


def test_few_texts_are_separated_by_one_shift() -> None:
    assert len(perfect_table(["red", "green", "blue", "black", "white"]).shifts) == 1
    assert len(perfect_table([f"text {place}" for place in range(1000)]).shifts) > 1


@pytest.mark.parametrize("number", [0, 1, 1000, 50_000])
def test_many_texts_have_places(number: int) -> None:
    table = perfect_table([f"text {place}" for place in range(number)])
    assert len(set(table.places)) == number
