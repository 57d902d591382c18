"""A line that no machine should hold whole is one bad row, and is never held whole."""

import bz2
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts.own_columns import MALFORMED, SOURCE_FILE
from mlspark.errors import SourceError
from mlspark.sources import catalog, long_lines
from mlspark.sources.csv import CsvSettings
from mlspark.sources.source import Part

from .conftest import ANN, conformed, line, visits

LIMIT = 65_536
HEADER = ",".join(ANN) + "\n"


def plain(content: bytes) -> bytes:
    return content


def csv_lines(long: int) -> bytes:
    return f"{line()}\n{line(name='x' * long)}\r\n{line(id='2')}\n{line(id='3', name='é')}".encode()


def json_lines(long: int) -> bytes:
    rows = (ANN, ANN | {"name": "x" * long}, ANN | {"id": 2}, ANN | {"id": 3})
    return "\n".join(json.dumps(row) for row in rows).encode()


def below_header(long: int) -> bytes:
    return b"\xef\xbb\xbf# made by hand\n\n" + HEADER.encode() + csv_lines(long)


CSV: dict[str, Any] = {"kind": "csv", "path": "in", "max_line_bytes": LIMIT}
JSON = CSV | {"kind": "json"}
WITH_HEADER = CSV | {"header": True, "comment": "#"}
FILES: dict[str, tuple[dict[str, Any], Callable[[int], bytes], Callable[[bytes], bytes]]] = {
    "a.csv": (CSV, csv_lines, plain),
    "a.csv.gz": (CSV, csv_lines, gzip.compress),
    "a.csv.bz2": (CSV, csv_lines, bz2.compress),
    "header.csv": (WITH_HEADER, below_header, plain),
    "header.csv.gz": (WITH_HEADER, below_header, gzip.compress),
    "a.json": (JSON, json_lines, plain),
    "a.json.gz": (JSON, json_lines, gzip.compress),
}


def one_bad_row(spark: SparkSession, folder: Path, name: str, long: int) -> None:
    settings, content, packed = FILES[name]
    (folder / "in" / name).write_bytes(packed(content(long)))
    outcome = conformed(spark, folder, settings)
    too_long = ("", "malformed", f"longer than max_line_bytes={LIMIT}")
    assert [reasons for _, reasons in outcome] == [[], [too_long], [], []]
    assert LIMIT < len(outcome[1][0].encode()) <= LIMIT + 4


@pytest.mark.parametrize("name", FILES)
def test_long_line_is_a_bad_row_between_good_ones(spark: SparkSession, folder: Path, name: str) -> None:
    one_bad_row(spark, folder, name, 20_000_000 if name == "a.csv" else 3_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "header.csv", "a.json"])
def test_line_of_200_megabytes_is_a_bad_row_of_a_driver_of_2_gigabytes(
    spark: SparkSession, folder: Path, name: str
) -> None:
    one_bad_row(spark, folder, name, 200_000_000)


def test_only_files_with_long_lines_are_read_in_pieces(spark: SparkSession, folder: Path) -> None:
    (folder / "in" / "a b%20c.csv").write_bytes(csv_lines(2_000_000))
    (folder / "in" / "b.csv").write_bytes(csv_lines(LIMIT) + b"\n" + (line() + "\n").encode() * 40_000)
    source = catalog.find(spark, CsvSettings(**CSV), root=str(folder))
    [long] = long_lines.files_with(spark, source.parts, LIMIT)
    assert long.endswith("/a b%20c.csv")
    rows = catalog.read(spark, source, visits())
    counts = {
        row[SOURCE_FILE].rsplit("/", 1)[1]: (row["rows"], row["bad"])
        for row in rows.groupBy(SOURCE_FILE).agg(F.count("*").alias("rows"), F.count(MALFORMED).alias("bad")).collect()
    }
    (folder / "in" / "a b%20c.csv").write_bytes(csv_lines(10))
    again = catalog.read(spark, catalog.find(spark, CsvSettings(**CSV), root=str(folder)), visits())
    assert rows.select(SOURCE_FILE).distinct().count() == 2
    assert {row[0] for row in again.select(SOURCE_FILE).distinct().collect()} == {
        row[0] for row in rows.select(SOURCE_FILE).distinct().collect()
    }
    assert sorted(counts.values()) == [(4, 1), (40_004, 1)]


def test_what_is_wrong_with_a_file_of_long_lines_is_named(spark: SparkSession, folder: Path) -> None:
    (folder / "in" / "a.csv").write_text(HEADER + line())
    (folder / "in" / "b.csv").write_bytes(HEADER.replace("age", "Alter").encode() + csv_lines(2_000_000))
    with pytest.raises(
        SourceError, match=r"b\.csv: its first line 'id,Alter,.*' is not the first file's header 'id,age"
    ):
        conformed(spark, folder, WITH_HEADER)
    (folder / "in" / "b.csv").unlink()
    (folder / "in" / "a.csv").write_text("x" * 2_000_000 + "\n" + line())
    with pytest.raises(
        SourceError, match=r"a\.csv: the header is longer than max_line_bytes=65536; correct the file, or"
    ):
        conformed(spark, folder, WITH_HEADER)
    (folder / "in" / "a.csv").unlink()
    (folder / "in" / "c.csv.gz").write_bytes(gzip.compress(csv_lines(2_000_000))[:-20])
    with pytest.raises(SourceError, match=r"c\.csv\.gz: cannot be read: .*; correct or remove it; nothing was written"):
        conformed(spark, folder, CSV)


def test_files_are_looked_through_by_their_line_ends(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_lines, "_SEGMENT", 3 * long_lines.ALWAYS_WHOLE)
    most = long_lines.ALWAYS_WHOLE
    short, long = b"x" * (most - 1) + b"\r", b"x" * (3 * most) + b"\n"  # twice is what it may overlook
    contents = {
        "short": short * 9,
        "first": long + b"a\n" * 9,
        "last": b"a\n" * most + long,
        "inside": short * 4 + long + short,
    }
    parts = []
    for name, content in contents.items():
        for file, packed in ((name, content), (f"{name}.gz", gzip.compress(content, 1))):
            (tmp_path / file).write_bytes(packed)
            parts.append(Part(f"file:{tmp_path}/{file}", "now", len(packed)))
    found = long_lines.files_with(spark, tuple(parts), 1)
    names = {name.rsplit("/", 1)[1] for name in found}
    assert names - {"short.gz"} == {f"{name}{end}" for name in ("first", "last", "inside") for end in ("", ".gz")}


@given(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", "é".encode()]), max_size=30), st.integers(1, 9))
def test_pieces_make_the_lines_of_the_whole(pieces: list[bytes], size: int) -> None:
    content = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_lines, "_PIECE", size)
        assert list(long_lines.split(io.BytesIO(content), 1000)) == content.splitlines()
        for cut, whole in zip(long_lines.split(io.BytesIO(content), 3), content.splitlines(), strict=True):
            assert cut == whole if len(whole) <= 3 else whole.startswith(cut) and 3 < len(cut) <= 7
            assert whole.decode().startswith(cut.decode())


class Endless(io.RawIOBase):
    """A line of 200 MB, made as it is read."""

    left = 200_000_000

    def read(self, size: int = -1, /) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return b"x" * size


def test_memory_is_bounded_whatever_the_line() -> None:
    tracemalloc.start()
    [cut] = long_lines.split(Endless(), LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cut) == LIMIT + 4
    assert peak < 16_000_000
