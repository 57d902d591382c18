"""Pictures in folders, archives and idx files on HDFS and S3, read by executors in other processes."""

import random
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.contracts.own_columns import MALFORMED, SOURCE_FILE
from mlspark.errors import SourceError
from mlspark.sources import binary_rows, catalog
from tests.conftest import REAL_DATA
from tests.sources import same_pictures
from tests.sources.picture_files import (
    PICTURES,
    WRITERS,
    contract,
    find,
    read,
    tar_bytes,
    write_folder,
    zip_bytes,
)  # fmt: skip
from tests.sources.test_idx import idx_bytes
from tools.cluster import loading
from tools.cluster.hdfs import Hdfs
from tools.cluster.s3 import S3

CIFAR = REAL_DATA / "cifar10-jpeg" / "test.zip"
SAME_KINDS = ("folder", "zip", "tar", "webdataset", "delta")


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(5000)


@pytest.fixture(scope="module", params=["hdfs", "s3"])
def root(request: pytest.FixtureRequest, hdfs: Hdfs, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder on either with the same pictures in all forms."""
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder / "folder", [*PICTURES, ("label=01/a b%20.jpg", b"x"), (".hidden/_1.jpg", b"y")])
    for end, write in WRITERS.items():
        (folder / f"pictures.{end}").write_bytes(write(PICTURES))
    (folder / "idx").write_bytes(idx_bytes(np.arange(12, dtype="i4").reshape(3, 4)))
    (folder / "m.csv").write_text("path,label\ncat/1.jpg,Cat\nnone.jpg,Cat\n")
    members = [(f"{number:04}.jpg", noise(number)) for number in range(400)]
    (folder / "large.zip").write_bytes(zip_bytes(members))
    (folder / "large.tar").write_bytes(tar_bytes(members))
    uri = storage.join({"hdfs": hdfs, "s3": s3}[request.param].url, "pictures")
    loading.upload(folder, uri)
    return uri


def test_every_form_gives_the_same_rows(cluster_spark: SparkSession, root: str) -> None:
    expected = sorted((name.split("/")[0], content) for name, content in PICTURES)
    for kind, path in (("images", "folder/[cd]*"), *(("archives", f"pictures.{end}") for end in WRITERS)):
        rows = read(cluster_spark, find(cluster_spark, Path("/"), kind=kind, path=f"{root}/{path}"), "image", "label")
        assert sorted((row["label"], bytes(row["image"])) for row in rows) == expected
        assert {row[SOURCE_FILE].rsplit("/pictures/")[0] for row in rows} == {root.removesuffix("/pictures")}


@pytest.mark.skipif(not CIFAR.is_file(), reason=f"no {CIFAR}: set MLSPARK_DATA")
def test_cifar_on_a_store_gives_the_feature_rows_of_the_local_disk(
    cluster_spark: SparkSession, root: str, tmp_path: Path
) -> None:
    """Folder, zip, tar and WebDataset's tar, and a Delta table, each read there by executors."""
    pictures = same_pictures.real(CIFAR, per_class=10)
    classes = sorted({name.split("/")[0] for name, _ in pictures})
    (tmp_path / "same").mkdir()
    for kind in SAME_KINDS:
        same_pictures.write(tmp_path / "same", kind, pictures)
    there = f"{root}/same"
    loading.upload(tmp_path / "same", there)
    expected = same_pictures.prepared(cluster_spark, "folder", str(tmp_path / "same"), tmp_path / "local", classes)
    assert len(expected[0]) == 100
    for kind in SAME_KINDS:
        assert same_pictures.prepared(cluster_spark, kind, there, tmp_path / kind, classes) == expected, kind


def test_every_file_is_a_row_whatever_its_name(cluster_spark: SparkSession, root: str) -> None:
    source = find(cluster_spark, Path("/"), kind="images", path=f"{root}/folder")
    rows = read(cluster_spark, source, "path", "image", "label")
    contents = dict(PICTURES) | {"label=01/a b%20.jpg": b"x", ".hidden/_1.jpg": b"y"}
    assert {row["path"]: bytes(row["image"]) for row in rows} == contents
    assert find(cluster_spark, Path("/"), kind="images", path=f"{root}/folder").identity == source.identity


def test_manifest_and_idx_are_read(cluster_spark: SparkSession, root: str) -> None:
    named = find(cluster_spark, Path("/"), kind="images", path=f"{root}/folder", manifest={"path": f"{root}/m.csv"})
    rows = read(cluster_spark, named, "path", "label", "image")
    assert [(row["path"], row["label"], row[MALFORMED]) for row in rows] == [
        ("cat/1.jpg", "Cat", None), ("none.jpg", "Cat", "no such file"),
    ]  # fmt: skip
    numbers = find(cluster_spark, Path("/"), kind="idx", path=root, columns={"many": "idx"})
    assert [row["many"] for row in read(cluster_spark, numbers, "many")] == [
        "[0.0,1.0,2.0,3.0]", "[4.0,5.0,6.0,7.0]", "[8.0,9.0,10.0,11.0]",
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["zip", "tar"])
def test_large_archive_is_read_by_several_tasks(
    cluster_spark: SparkSession, root: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(binary_rows, "TASK_BYTES", 700_000)
    source = find(cluster_spark, Path("/"), kind="archives", path=f"{root}/large.{end}")
    rows = catalog.read(cluster_spark, source, contract("member", "place", "image"))
    assert rows.rdd.getNumPartitions() > 2
    assert [(row.member, row.place, bytes(row.image)) for row in rows.collect()] == [
        (f"{number:04}.jpg", number, noise(number)) for number in range(400)
    ]


def test_file_that_goes_away_is_named_in_one_line(cluster_spark: SparkSession, root: str) -> None:
    storage.write_bytes(f"{root}/going/a.jpg", b"x")
    source = find(cluster_spark, Path("/"), kind="images", path=f"{root}/going")
    storage.delete(f"{root}/going/a.jpg")
    with pytest.raises(SourceError) as caught:
        read(cluster_spark, source, "image")
    assert f"{root}/going/a.jpg: cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)
