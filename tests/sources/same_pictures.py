"""The same pictures for every kind of source, and what prepare makes of them: rows and encoder, to hold against others."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from deltalake import write_deltalake
from pyarrow import orc
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.features import prepared as preparations
from mlspark.settings import loading
from mlspark.stages.prepare import prepare
from tests.sources.picture_files import tar_bytes, tar_gz_bytes, write_folder, zip_bytes

Pictures = Sequence[tuple[str, bytes]]
"""(class/name.jpg, content)."""
Prepared = tuple[list[dict[str, Any]], str]
"""The rows of a feature table by row_id, and its encoder."""


def real(archive: Path, per_class: int) -> Pictures:
    """The first pictures of each class of a CIFAR-10 zip, one name for all folders of it."""
    taken: dict[str, int] = {}
    pictures = []
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if member.is_dir() or not member.filename.endswith(".jpg"):
                continue
            label = member.filename.split("/")[-2]
            if (number := taken.get(label, 0)) < per_class:
                taken[label] = number + 1
                pictures.append((f"{label}/{number:04}.jpg", opened.read(member)))
    return pictures


def _webdataset(pictures: Pictures) -> bytes:
    members = []
    for number, (name, content) in enumerate(pictures):
        members += [(f"{number:06}.jpg", content), (f"{number:06}.cls", name.split("/")[0].encode() + b"\n")]
    return tar_bytes(members)


def _table(pictures: Pictures) -> pa.Table:
    labels, contents = [name.split("/")[0] for name, _ in pictures], [content for _, content in pictures]
    return pa.table({"image": pa.array(contents, pa.binary()), "label": labels, "nobody asks for": labels})


def _manifest(pictures: Pictures) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *((name, name.split("/")[0]) for name, _ in pictures)])
    return text.getvalue().encode()


def _write_bytes(content: Callable[[Pictures], bytes]) -> Callable[[Path, Pictures], object]:
    return lambda path, pictures: path.write_bytes(content(pictures))


KINDS: Mapping[str, tuple[Callable[[Path, Pictures], object], dict[str, Any]]] = {
    "folder": (write_folder, {"kind": "images"}),
    "zip": (_write_bytes(zip_bytes), {"kind": "archives"}),
    "tar": (_write_bytes(tar_bytes), {"kind": "archives"}),
    "tar.gz": (_write_bytes(tar_gz_bytes), {"kind": "archives"}),
    "webdataset": (_write_bytes(_webdataset), {"kind": "archives", "webdataset": True}),
    "parquet": (lambda path, pictures: pq.write_table(_table(pictures), path), {"kind": "parquet"}),
    "orc": (lambda path, pictures: orc.write_table(_table(pictures), path), {"kind": "orc"}),
    "delta": (lambda path, pictures: write_deltalake(path, _table(pictures)), {"kind": "delta"}),
}


def write(folder: Path, kind: str, pictures: Pictures) -> None:
    """Write the pictures as `kind` to `folder`/`kind`."""
    KINDS[kind][0](folder / kind, pictures)


def write_manifest(folder: Path, pictures: Pictures) -> None:
    """Write manifest.csv of the pictures, with their labels."""
    (folder / "manifest.csv").write_bytes(_manifest(pictures))


def prepared(spark: SparkSession, kind: str, root: str, folder: Path, classes: Sequence[str], **more: Any) -> Prepared:
    """What prepare makes of the source `root`/`kind`; settings and tables go to `folder`."""
    image, label = ("jpg", "cls") if kind == "webdataset" else ("image", "label")
    columns = [
        {"name": "photo", "header": image, "type": "binary", "nullable": False, "media": {"formats": ["jpeg"]}},
        {"name": "class", "header": label, "type": "string", "nullable": False, "allowed": list(classes)},
    ]
    folder.mkdir()
    (folder / "contract.json").write_text(json.dumps({"name": "same", "label": "class", "columns": columns}))
    small = {"kind": "image", "columns": ["photo"], "size": 4}
    settings = {
        "name": "same",
        "contract": str(folder / "contract.json"),
        "storage": {"root": str(folder / "home")},
        "sources": {"root": root, "learn": {**KINDS[kind][1], "path": kind, **more}},
        "task": {"kind": "multiclass", "target": "class", "classes": list(classes)},
        "features": {"inputs": [small, {**small, "name": "file", "store": "encoded"}]},
    }
    (folder / "same.yaml").write_text(yaml.safe_dump(settings))
    loaded = loading.load([str(folder / "same.yaml")])
    report = prepare(spark, loaded)
    found = preparations.latest(loaded.table("features"))
    rows = tables.read(spark, found.table, version=report["version"]).toArrow().to_pylist()
    return sorted(rows, key=lambda row: row["row_id"]), json.dumps(found.encoder.to_json(), sort_keys=True)
