"""Pictures for tests, in folders and in archives of every format, and what a source gives of them."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pyspark.sql import SparkSession

from mlspark.contracts import check_spark
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import RAW
from mlspark.sources import catalog
from mlspark.sources.catalog import AnySource
from mlspark.sources.source import Source, reading

Members = Sequence[tuple[str, bytes]]

PICTURES: Members = [
    ("cat/1.jpg", b"first cat" * 50),
    ("cat/2.jpg", b"second cat" * 60),
    ("dog/1.jpg", b"a dog" * 70),
    ("dog/_2.jpg", b"a hidden dog" * 80),
]


def write_folder(folder: Path, members: Members = PICTURES) -> Path:
    for name, content in members:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zip_bytes(members: Members = PICTURES, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as file:
        for name, content in members:
            file.writestr(zipfile.ZipInfo(name), content, compression)
    return written.getvalue()


def tar_bytes(members: Members = PICTURES, headers: Iterable[tarfile.TarInfo] = ()) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as file:
        for header in headers:
            file.addfile(header)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return written.getvalue()


def tar_gz_bytes(members: Members = PICTURES) -> bytes:
    return gzip.compress(tar_bytes(members), mtime=0)


WRITERS = {"zip": zip_bytes, "tar": tar_bytes, "tar.gz": tar_gz_bytes}


Row = dict[str, Any]


def contract(*names: str, **types: str) -> Contract:
    """A contract of texts, and what else is named; `image` is binary."""
    known = {"image": "binary", "place": "bigint", "jpg": "binary"}
    wanted = {name: known.get(name, "string") for name in names} | types
    columns = tuple(ColumnRule(name=name, type=kind) for name, kind in wanted.items())
    return Contract(name="pictures", columns=columns)


def find(spark: SparkSession, root: Path, **settings: Any) -> Source:
    checked = TypeAdapter(AnySource).validate_python({"path": "in", **settings})
    return catalog.find(spark, checked, root=str(root))


def read(spark: SparkSession, source: Source, *names: str, **types: str) -> list[Row]:
    frame = catalog.read(spark, source, contract(*names, **types))
    with reading(source.uri):
        return [row.asDict() for row in frame.withColumn(RAW, check_spark.raw_text(frame)).collect()]
