"""Manifests as spreadsheets and scripts write them: read as they mean it, or refused with what to write."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlspark.errors import SourceError
from mlspark.sources import manifest, typed_rows
from mlspark.sources.picture_settings import ManifestSettings


def read(folder: Path, content: bytes) -> dict[str, list[Any]]:
    (folder / "m.csv").write_bytes(content)
    settings = ManifestSettings(path="m.csv")
    found: dict[str, list[Any]] = manifest.read(
        manifest.part(settings, str(folder)), settings, name="path", taken=("image",)
    ).to_pydict()
    return found


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"\xef\xbb\xbfpath,label\na.jpg,x\n", ["a.jpg"]),
        (b"path,label\r\n\r\na.jpg,x\r\n", ["a.jpg"]),
        (b"path,n\n./a/1.jpg,x\n.//./b.jpg,x\n.x/c.jpg,x\n../d.jpg,x\n,x\n",
         ["a/1.jpg", "b.jpg", ".x/c.jpg", "../d.jpg", None]),
        (b'path,label\na.jpg,"' + b"x" * 3_000_000 + b'"\nb.jpg,x\n', ["a.jpg", "b.jpg"]),
        ("path,label\nÄ €.jpg,x\n".encode(), ["Ä €.jpg"]),
    ],
)  # fmt: skip
def test_paths_are_read(tmp_path: Path, content: bytes, paths: list[str | None]) -> None:
    assert read(tmp_path, content)["path"] == paths


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\né.jpg,x\n".encode("latin-1"), "m.csv: is not UTF-8 at byte 11; write the manifest in UTF-8"),
        ("path,label\na.jpg,x\n".encode("utf-16"), "m.csv: is not UTF-8 at byte 0; write the manifest in UTF-8"),
        (b"path;label\na.jpg;x\n", "has no column 'path' but path;label; set manifest.column"),
        (b"path,Path\na,b\n", "columns Path, path stand there twice"),
        (b"path,_mlspark_malformed\na,b\n", r"columns _mlspark_malformed .* rename them in the manifest"),
        (b"path,label\na.jpg\n", "cannot be read as csv .* each line has as many fields as the first"),
        (b'path,label\n"a.jpg,x\n', "cannot be read as csv"),
        (
            b"path,Label\na.jpg,x\n",
            "column Label is called like the source's own label but for its case; call it label",
        ),
        (b"path,Image\na.jpg,x\n", "columns Image .* called like the source's own"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, content)


def test_types_that_spark_lacks_keep_every_value_or_say_why_not(tmp_path: Path) -> None:
    values = {
        "u8": pa.array([255], pa.uint8()), "u32": pa.array([2**32 - 1], pa.uint32()),
        "u64": pa.array([2**64 - 1], pa.uint64()), "half": pa.array([np.float16(0.5)]),
        "coded": pa.array(["cat"]).dictionary_encode(), "seen": pa.array([1_001_000], pa.timestamp("ns", "UTC")),
        "wide": pa.array([Decimal(10) ** 45], pa.decimal256(50, 0)), "fine": pa.array([1_001], pa.timestamp("ns")),
        "fines": pa.array([[1_001]], pa.list_(pa.timestamp("ns"))),
    }  # fmt: skip
    pq.write_table(pa.table({"path": ["a.jpg"], **values}), tmp_path / "m.parquet")
    settings = ManifestSettings(path="m.parquet", kind="parquet")
    table = manifest.read(manifest.part(settings, str(tmp_path)), settings, name="path", taken=())
    [row] = table.to_pylist()
    assert (row["u8"], row["u32"], row["u64"], row["half"], row["coded"]) == (255, 2**32 - 1, 2**64 - 1, 0.5, "cat")
    assert (row["seen"].microsecond, row["wide"], row["fine"], row["fines"]) == (1001, None, None, None)
    fields = {field.name: field for field in manifest.fields(table)}
    assert [fields[name].dataType.simpleString() for name in ("u8", "u32", "u64", "half", "seen")] == [
        "smallint", "bigint", "decimal(20,0)", "float", "timestamp",
    ]  # fmt: skip
    why = {name: field.metadata[typed_rows.UNREADABLE] for name, field in fields.items() if field.metadata}
    of = f"in {tmp_path}/m.parquet, which Spark does not read"
    assert why == {
        "wide": f"wide is decimal256(50, 0) {of}; write it as another type, or leave it out of the contract",
        "fine": f"fine is timestamp[ns] {of}; write it in microseconds, or leave it out of the contract",
        "fines": f"fines is list<element: timestamp[ns]> {of}; write it in microseconds, or leave it out of the contract",
    }
