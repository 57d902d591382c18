"""idx files: every type, plain and compressed, equal numbers of rows, PNG files that lose nothing."""

import gzip
import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from pyspark.sql import SparkSession

from mlspark.contracts.own_columns import MALFORMED, RAW
from mlspark.errors import SourceError
from mlspark.sources import binary_rows, catalog
from mlspark.sources.idx import IdxSettings
from tests.conftest import REAL_DATA
from tests.sources.picture_files import contract, find, read

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    header = struct.pack(">BBBB", 0, 0, CODES[array.dtype.str[1:]], array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


PIXELS = np.arange(5 * 4 * 3, dtype="u1").reshape(5, 4, 3)


def write(folder: Path, **files: bytes) -> dict[str, str]:
    (folder / "in").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / "in" / name).write_bytes(content)
    return {name: name for name in files}


@pytest.mark.parametrize("task_bytes", [30, 2**26])
def test_rows_of_all_types_come_back(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_bytes: int
) -> None:
    monkeypatch.setattr(binary_rows, "TASK_BYTES", task_bytes)
    values = {
        "u1": [0, 255, 1], "i1": [-128, 127, 0], "i2": [-32768, 32767, 1], "i4": [-(2**31), 2**31 - 1, 0],
        "f4": [1.5, -0.25, 0.0], "f8": [1e300, 0.1, -1.0],
    }  # fmt: skip
    arrays = {name: np.array(numbers, name) for name, numbers in values.items()}
    colours = np.arange(3 * 2 * 2 * 3, dtype="u1").reshape(3, 2, 2, 3)
    arrays |= {"grey": PIXELS[:3], "colour": colours, "many": np.arange(3 * 2 * 2, dtype="f8").reshape(3, 2, 2)}
    columns = write(tmp_path, **{name: idx_bytes(array) for name, array in arrays.items()})
    source = find(spark, tmp_path, kind="idx", columns=columns)
    schema = catalog.columns(spark, source)
    assert schema is not None
    assert schema.simpleString() == (
        "struct<u1:smallint,i1:tinyint,i2:smallint,i4:int,f4:float,f8:double,grey:binary,colour:binary,"
        "many:array<double>,place:bigint>"
    )
    rows = read(
        spark, source, u1="int", i1="smallint", i2="int", i4="int", f4="float", f8="double", grey="binary", colour="binary",
        many="array<double>", place="bigint",
    )  # fmt: skip
    assert [row["place"] for row in rows] == [0, 1, 2]
    for name, numbers in values.items():
        assert [row[name] for row in rows] == numbers
    assert [json.loads(row["many"]) for row in rows] == arrays["many"].reshape(3, 4).tolist()
    for name in ("grey", "colour"):
        pictures = [Image.open(io.BytesIO(row[name])) for row in rows]
        assert {picture.format for picture in pictures} == {"PNG"}
        assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), arrays[name])


def test_compressed_files_are_read_beside_plain_ones(spark: SparkSession, tmp_path: Path) -> None:
    labels = np.arange(5, dtype="u1")
    write(tmp_path, a=gzip.compress(idx_bytes(PIXELS)), b=idx_bytes(labels))
    rows = read(spark, find(spark, tmp_path, kind="idx", columns={"image": "a", "label": "b"}), "image", label="int")
    assert [row["label"] for row in rows] == labels.tolist()
    assert [np.asarray(Image.open(io.BytesIO(row["image"]))).tolist() for row in rows] == PIXELS.tolist()


def test_files_of_different_lengths_are_refused_by_name(spark: SparkSession, tmp_path: Path) -> None:
    columns = write(tmp_path, a=idx_bytes(PIXELS), b=gzip.compress(idx_bytes(np.arange(4, dtype="i4"))))
    source = find(spark, tmp_path, kind="idx", columns=columns)
    message = r"files have different numbers of rows: .*in/a has 5 and .*in/b has 4; check columns"
    for ask in (catalog.columns, lambda *given: catalog.read(*given, contract("a"))):
        with pytest.raises(SourceError, match=message):
            ask(spark, source)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (idx_bytes(PIXELS)[:-13], "rows 3 to 4 cannot be read: .*in/a: is cut short: it says 5 rows and has 3"),
        (idx_bytes(PIXELS)[:-1], ".*in/a: is cut short: it says 5 rows and has 4"),
        (idx_bytes(PIXELS) + b"\0", "more data after its 5 rows"),
        (gzip.compress(idx_bytes(PIXELS), mtime=0)[:-12], "damaged: Compressed file ended before the end-of-stream"),
        (gzip.compress(idx_bytes(PIXELS), mtime=0)[:-8] + bytes(8), "damaged: CRC check failed"),
    ],
    ids=["cut", "row cut", "longer", "packed and cut", "packed, damaged"],
)
def test_damage_is_a_bad_row(spark: SparkSession, tmp_path: Path, content: bytes, reason: str) -> None:
    columns = write(tmp_path, a=content, b=idx_bytes(np.arange(5, dtype="u1")))
    rows = read(spark, find(spark, tmp_path, kind="idx", columns=columns), a="binary", b="int")
    bad = [row for row in rows if row[MALFORMED] is not None]
    assert len(bad) == 1
    assert rows[-1] == bad[0]
    assert [row["b"] for row in rows[:-1]] == list(range(len(rows) - 1))
    assert re.search(reason, bad[0][MALFORMED])
    assert "PNG" not in bad[0][RAW]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no idx file: it begins with , and not"),
        (b"\0\0\x08", "is no idx file: it begins with 00 00 08"),
        (b"\0\0\x07\x01\0\0\0\x05", "is no idx file: it begins with 00 00 07 01 00 00 00 05"),
        (b"\x89PNG\r\n\x1a\n", "is no idx file: it begins with 89 50"),
        (b"\0\0\x08\x00", "is no idx file"),
        (b"\0\0\x08\x02\0\0\0\x05", "is no idx file"),
        (b"\0\0\x08\x02\0\0\0\x05\0\0\0\0", "has rows of no element: its axes are 5, 0"),
        (b"\x1f\x8bxxxxxxxx", "is no idx file"),
        (
            gzip.compress(b"\0\0\x08\x03\0\0\0\x01\0\0\xff\xff\0\0\xff\xff", mtime=0),
            "has rows of 4,294,836,225 bytes, its axes are 1",
        ),
    ],
    ids=[
        "empty",
        "cut in its first four bytes",
        "unknown type",
        "PNG",
        "no axis",
        "cut in its axes",
        "axis of nothing",
        "not packed",
        "huge rows",
    ],
)
def test_other_files_are_refused(spark: SparkSession, tmp_path: Path, content: bytes, message: str) -> None:
    source = find(spark, tmp_path, kind="idx", columns=write(tmp_path, a=content))
    with pytest.raises(SourceError, match=message):
        catalog.columns(spark, source)


def test_a_header_of_any_number_of_rows_is_one_bad_row(spark: SparkSession, tmp_path: Path) -> None:
    """Before, four billion rows of a file that holds three were 46,731 tasks, each with a bad row."""
    content = b"\0\0\x08\x03\xee\x6b\x28\0\0\0\0\x1c\0\0\0\x1c" + bytes(3 * 28 * 28)
    source = find(spark, tmp_path, kind="idx", columns=write(tmp_path, image=content))
    frame = catalog.read(spark, source, contract("image"))
    assert frame.rdd.getNumPartitions() == 1
    rows = frame.collect()
    assert [row[MALFORMED] for row in rows[:-1]] == [None] * 3
    assert rows[-1][MALFORMED].startswith("rows 3 to 3,999,999,999 cannot be read")
    assert rows[-1][MALFORMED].endswith("is cut short: it says 4,000,000,000 rows and has 3")


def test_absent_files_are_named(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path, a=b"")
    with pytest.raises(SourceError, match=r"in/none: no such file or folder; check columns\.image"):
        find(spark, tmp_path, kind="idx", columns={"image": "none"})
    with pytest.raises(SourceError, match=r"is a folder or a pattern; columns\.image is one file"):
        find(spark, tmp_path, kind="idx", path=".", columns={"image": "in"})
    with pytest.raises(SourceError, match=r"is a folder or a pattern; columns\.image is one file"):
        find(spark, tmp_path, kind="idx", columns={"image": "a*"})


@pytest.mark.parametrize("columns", [{"a": "x", "A": "y"}, {"Place": "x"}, {"_mlspark_raw": "x"}])
def test_columns_of_one_name_are_refused(columns: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="is there twice but for its case, or a name of the source's own"):
        IdxSettings(kind="idx", path="in", columns=columns)
    with pytest.raises(ValidationError, match="columns: is empty; name a file for each column"):
        IdxSettings(kind="idx", path="in", columns={})


@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason="no mnist in MLSPARK_DATA")
def test_mnist_is_whole(spark: SparkSession) -> None:
    for name, expected in (("train", 60_000), ("t10k", 10_000)):
        files = {"image": f"{name}-images-idx3-ubyte.gz", "label": f"{name}-labels-idx1-ubyte.gz"}
        source = find(spark, REAL_DATA, kind="idx", path="mnist", columns=files)
        rows = catalog.read(spark, source, contract("image", label="int"))
        counts = {
            row.label: row["count"] for row in rows.where(f"{MALFORMED} is null").groupBy("label").count().collect()
        }
        assert sum(counts.values()) == expected
        with gzip.open(REAL_DATA / "mnist" / files["label"]) as labels:
            assert counts == dict(enumerate(np.bincount(np.frombuffer(labels.read()[8:], "u1")).tolist()))
