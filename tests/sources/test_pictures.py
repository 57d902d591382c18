"""Pictures from folders and archives: the same rows from each, every file accounted for, bad ones with their reason."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pydantic import TypeAdapter, ValidationError
from pyspark.sql import SparkSession

from mlspark.contracts import check_spark
from mlspark.contracts.own_columns import MALFORMED, RAW, SOURCE_FILE
from mlspark.errors import SourceError
from mlspark.intake import rows as rows_of_sources
from mlspark.sources import binary_rows, catalog
from mlspark.sources.catalog import AnySource
from tests.conftest import REAL_DATA
from tests.sources.picture_files import (
    PICTURES,
    WRITERS,
    Row,
    contract,
    find,
    read,
    tar_bytes,
    tar_gz_bytes,
    write_folder,
    zip_bytes,
)  # fmt: skip


def labelled(rows: list[Row]) -> list[tuple[str, bytes]]:
    return sorted((row["label"], bytes(row["image"])) for row in rows)


EXPECTED = sorted((name.split("/")[0], content) for name, content in PICTURES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures in a folder, in archives, in archives as WebDataset writes them, and in tables."""
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root / "folder", PICTURES)
    keyed = []
    for number, (name, content) in enumerate(PICTURES):
        keyed += [(f"{number}.jpg", content), (f"{number}.cls", name.split("/")[0].encode() + b"\n")]
    for end, write in WRITERS.items():
        (root / f"pictures.{end}").write_bytes(write(PICTURES))
        (root / f"keyed.{end}").write_bytes(write(keyed))
    labels, images = zip(*((name.split("/")[0], content) for name, content in PICTURES), strict=True)
    table = pa.table({"label": labels, "image": pa.array(images, pa.binary())})
    pq.write_table(table, root / "pictures.parquet")
    orc.write_table(table, root / "pictures.orc")
    write_deltalake(root / "delta", table)
    return root


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("images", "folder"),
        ("archives", "pictures.zip"),
        ("archives", "pictures.tar"),
        ("archives", "pictures.tar.gz"),
        ("parquet", "pictures.parquet"),
        ("orc", "pictures.orc"),
        ("delta", "delta"),
    ],
)
def test_every_source_of_the_same_pictures_gives_the_same_rows(
    spark: SparkSession, root: Path, kind: str, path: str
) -> None:
    source = find(spark, root, kind=kind, path=path)
    columns = catalog.columns(spark, source)
    assert columns is not None
    assert (columns["image"].dataType.simpleString(), columns["label"].dataType.simpleString()) == ("binary", "string")
    # Where a picture is, every such source says: no difference from a contract that does not ask for it.
    assert not check_spark.differences(columns, contract("label", "image")).extra
    rows = read(spark, source, "image", "label")
    assert labelled(rows) == EXPECTED
    assert [row[MALFORMED] for row in rows] == [None] * len(PICTURES)
    for row in rows:
        raw = json.loads(row[RAW])
        assert raw["image"].keys() == {"sha256", "bytes"}
        assert raw["image"]["bytes"] == len(row["image"])


@pytest.mark.parametrize("end", WRITERS)
def test_files_of_a_key_are_the_same_rows(spark: SparkSession, root: Path, end: str) -> None:
    source = find(spark, root, kind="archives", path=f"keyed.{end}", webdataset=True)
    columns = catalog.columns(spark, source)
    assert columns is not None
    assert columns.simpleString() == "struct<key:string,place:bigint,jpg:binary,cls:string>"
    rows = read(spark, source, "key", "jpg", "cls", "place")
    assert sorted((row["cls"], bytes(row["jpg"])) for row in rows) == EXPECTED
    assert [(row["key"], row["place"]) for row in rows] == [("0", 0), ("1", 2), ("2", 4), ("3", 6)]
    assert [row[MALFORMED] for row in rows] == [None] * 4


def test_a_group_of_the_pattern_does_not_take_the_place_of_a_file_of_the_key(spark: SparkSession, root: Path) -> None:
    source = find(spark, root, kind="archives", path="keyed.zip", webdataset=True, pattern="(?P<CLS>.)")
    with pytest.raises(SourceError, match=r"keyed\.zip: CLS is a group of pattern and the end .* rename the group"):
        catalog.columns(spark, source)


def test_files_of_a_key_that_end_like_a_column_of_ours_stop_nobody(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "odd.tar").write_bytes(
        tar_bytes([("1.JPG", b"x"), ("1.key", b"k"), ("1.place", b"p"), ("1.Cls", b"7")])
    )
    source = find(spark, tmp_path, kind="archives", path="odd.tar", webdataset=True)
    columns = catalog.columns(spark, source)
    assert columns is not None
    assert columns.names == ["key", "place", "jpg", "cls"]
    [row] = read(spark, source, "key", "jpg", "cls")
    assert (row["key"], bytes(row["jpg"]), row["cls"]) == ("1", b"x", "7")


def test_rows_say_where_they_are_from(spark: SparkSession, root: Path) -> None:
    [row] = read(spark, find(spark, root, kind="images", path="folder", filter="path = 'dog/_2.jpg'"), "image", "path")
    assert row[SOURCE_FILE] == str(root / "folder" / "dog" / "_2.jpg")
    assert json.loads(row[RAW])["uri"] == row[SOURCE_FILE]
    [row] = read(spark, find(spark, root, kind="archives", path="pictures.zip", filter="place = 3"), "label", "member")
    assert row[SOURCE_FILE] == str(root / "pictures.zip")
    assert json.loads(row[RAW]) == {
        "uri": row[SOURCE_FILE], "member": "dog/_2.jpg", "place": 3, "label": "dog",
    }  # fmt: skip


def test_no_file_is_left_out_and_no_labels_merge(spark: SparkSession, tmp_path: Path) -> None:
    """Spark's own source of files leaves out four of these in silence, and takes label=01 for label=1."""
    names = [
        "label=01/a.jpg",
        "label=1/a.jpg",
        "_a/b.jpg",
        ".a/b.jpg",
        "c/_d.jpg",
        "c/.d.jpg",
        "c/d._COPYING_",
        "C/Ä €.JPG",
    ]
    write_folder(tmp_path / "in", [(name, name.encode()) for name in names])
    source = find(spark, tmp_path, kind="images")
    rows = read(spark, source, "path", "label", "image")
    assert {(row["path"], row["label"], bytes(row["image"])) for row in rows} == {
        (name, name.split("/")[0], name.encode()) for name in names
    }
    assert len(source.parts) == len(rows) == len(names)
    later = find(spark, tmp_path, kind="images")
    assert later.identity == source.identity
    os.utime(tmp_path / "in" / "c" / ".d.jpg", (1, 1))
    assert find(spark, tmp_path, kind="images").identity != source.identity


def test_names_on_disk_stand_for_themselves(spark: SparkSession, tmp_path: Path) -> None:
    names = ["a b.jpg", "a%20b.jpg", "j*k.jpg", "i[1].jpg", "e#f,g?.jpg", "m{n}.jpg", 'q"u\\o.jpg', "no extension"]
    write_folder(tmp_path / "in", [(name, name.encode()) for name in names])
    (tmp_path / "in" / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    rows = {row["path"]: row for row in read(spark, find(spark, tmp_path, kind="images"), "path", "image", "label")}
    assert {name: bytes(row["image"]) for name, row in rows.items() if row[MALFORMED] is None} == {
        name: name.encode() for name in names
    }
    assert rows["\\xff.jpg"][MALFORMED] == "name is not UTF-8"
    assert {row["label"] for row in rows.values()} == {None}
    pattern = find(spark, tmp_path, kind="images", path="in/{a*,i[[]1]}.jpg")
    assert [part.name.rsplit("/", 1)[1] for part in pattern.parts] == ["a b.jpg", "a%20b.jpg", "i[1].jpg"]
    [one] = read(spark, find(spark, tmp_path, kind="images", path="in/j*k.jpg"), "path")
    assert one["path"] == "j*k.jpg"


def test_files_that_are_no_pictures_are_bad_rows(spark: SparkSession, tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [("empty.jpg", b""), ("large.jpg", b"x" * 11), ("good.jpg", b"x" * 10)])
    rows = read(spark, find(spark, tmp_path, kind="images", max_bytes=10, filter="path = 'good.jpg'"), "path", "image")
    assert {row["path"]: (row[MALFORMED], row["image"]) for row in rows} == {
        "empty.jpg": ("no byte", None),
        "large.jpg": ("11 bytes, more than max_bytes=10", None),
        "good.jpg": (None, b"x" * 10),
    }


def test_pattern_names_columns(spark: SparkSession, root: Path, tmp_path: Path) -> None:
    pattern = r"(?P<label>c)at/(?P<number>\d+)"
    expected = {("cat/1.jpg", "c", "1"), ("cat/2.jpg", "c", "2"), ("dog/1.jpg", None, None), ("dog/_2.jpg", None, None)}
    folder = read(spark, find(spark, root, kind="images", path="folder", pattern=pattern), "path", "label", "number")
    assert {(row["path"], row["label"], row["number"]) for row in folder} == expected
    packed = find(spark, root, kind="archives", path="pictures.tar", pattern=pattern)
    assert {
        (row["member"], row["label"], row["number"]) for row in read(spark, packed, "member", "label", "number")
    } == (expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "(a"}, "is no regular expression of Python"),
        ({"pattern": "a"}, "has no named group"),
        ({"pattern": "(?P<image>a)"}, "a group cannot be called image"),
        ({"pattern": "(?P<Label>a)"}, "a group cannot be called Label, .* only label itself takes that column's place"),
        ({"kind": "archives", "pattern": "(?P<LABEL>a)"}, "a group cannot be called LABEL"),
        ({"kind": "archives", "pattern": "(?P<Place>a)"}, "a group cannot be called Place"),
        ({"sidecar": "txt"}, "is the end of a name with its dot"),
        ({"sidecar": ".txt", "manifest": {"path": "m.csv"}}, "gives the label, and so does manifest or pattern"),
        ({"kind": "archives", "webdataset": True, "manifest": {"path": "m.csv"}}, "its rows are of members"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnySource).validate_python({"kind": "images", "path": "in", **settings})


def test_sidecars_hold_labels(spark: SparkSession, tmp_path: Path) -> None:
    files = [("a.jpg", b"x"), ("a.txt", b" cat\n"), ("b.jpg", b"y"), ("d/c.jpg", b"z"), ("d/c.txt", b"\xff")]
    write_folder(tmp_path / "in", [*files, ("e.txt", b"dog")])
    rows = read(spark, find(spark, tmp_path, kind="images", sidecar=".txt"), "path", "label", "image")
    assert {row["path"]: (row["label"], row[MALFORMED]) for row in rows} == {
        "a.jpg": ("cat", None),
        "b.jpg": (None, None),
        "d/c.jpg": (None, "sidecar is not UTF-8"),
        "e.txt": (None, "a sidecar without a picture"),
    }


MANIFEST = 'path,label,note\ncat/1.jpg,Cat,"two\nlines"\ndog/1.jpg,,\ncat/1.jpg,again,x\nnone.jpg,Cat,\n'


@pytest.mark.parametrize(
    ("kind", "path", "name"), [("images", "folder", "path"), ("archives", "pictures.tar", "member")]
)
def test_manifest_names_pictures_and_columns(spark: SparkSession, root: Path, kind: str, path: str, name: str) -> None:
    (root / "manifest.csv").write_text(MANIFEST)
    source = find(spark, root, kind=kind, path=path, manifest={"path": "manifest.csv"})
    columns = catalog.columns(spark, source)
    assert columns is not None
    assert set(columns.names) == {name, "image", "label", "note"} | ({"place"} if kind == "archives" else set())
    rows = read(spark, source, name, "label", "note", "image")
    contents = dict(PICTURES)
    missing = {"images": "no such file", "archives": "no such member"}[kind]
    expected = [
        ("cat/1.jpg", "Cat", "two\nlines", contents["cat/1.jpg"], None),
        ("cat/1.jpg", "again", "x", contents["cat/1.jpg"], None),
        ("dog/1.jpg", None, None, contents["dog/1.jpg"], None),
        ("none.jpg", "Cat", None, None, missing),
    ]
    if kind == "archives":  # nobody has asked to leave them out
        expected += [(other, None, None, contents[other], None) for other in ("cat/2.jpg", "dog/_2.jpg")]
    found = [
        (row[name], row["label"], row["note"], row["image"] and bytes(row["image"]), row[MALFORMED]) for row in rows
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_manifest_that_leads_elsewhere_or_has_other_columns(spark: SparkSession, root: Path, tmp_path: Path) -> None:
    (root / "manifest.csv").write_text("file,n\n../secret,1\n/etc/passwd,2\n,3\n")
    manifest = {"path": "manifest.csv", "column": "file"}
    rows = read(spark, find(spark, root, kind="images", path="folder", manifest=manifest), "path", "image", "n")
    assert {row["n"]: row[MALFORMED] for row in rows} == {
        "1": "name leads elsewhere (..)", "2": "absolute name", "3": "no path",
    }  # fmt: skip
    for content, message in (
        ("a,b\n1,2\n", "has no column 'file' but a, b; set manifest.column"),
        ("file,image\nx,y\n", "columns image stand there twice, or are called like the source's own"),
        ("file,b\n1,2,3\n", "cannot be read as csv .*Expected 2 columns, got 3"),
        ("file,b\n", "has no row"),
        ("", "cannot be read as csv"),
    ):
        (root / "manifest.csv").write_text(content)
        with pytest.raises(SourceError, match=message):
            find(spark, root, kind="images", path="folder", manifest=manifest)


def test_manifest_of_parquet_keeps_its_types(spark: SparkSession, root: Path) -> None:
    pq.write_table(pa.table({"path": ["cat/1.jpg"], "age": [3], "weight": [0.5]}), root / "manifest.parquet")
    source = find(spark, root, kind="images", path="folder", manifest={"path": "manifest.parquet", "kind": "parquet"})
    [row] = read(spark, source, "label", age="bigint", weight="double")
    assert (row["label"], row["age"], row["weight"]) == ("cat", 3, 0.5)


@pytest.mark.parametrize(("kind", "path"), [("images", "folder"), ("archives", "pictures.zip")])
def test_manifest_s_times_are_read_and_columns_that_cannot_be_stop_only_who_asks(
    spark: SparkSession, root: Path, kind: str, path: str
) -> None:
    times = {"seen": pa.array([1_001], pa.timestamp("us", "UTC")), "fine": pa.array([1_001], pa.timestamp("ns"))}
    pq.write_table(pa.table({"path": ["cat/1.jpg"], "n": pa.array([7], pa.uint32()), **times}), root / "times.parquet")
    source = find(spark, root, kind=kind, path=path, manifest={"path": "times.parquet", "kind": "parquet"})
    rows = read(spark, source, "image", n="bigint", seen="timestamp")
    [row] = [row for row in rows if bytes(row["image"]) == PICTURES[0][1]]
    assert (row[MALFORMED], row["n"], row["seen"].microsecond) == (None, 7, 1001)
    asked = contract("image", fine="timestamp")
    with pytest.raises(SourceError, match=r"fine is timestamp\[ns\] in .*times\.parquet, .* microseconds"):
        rows_of_sources.compare_columns(spark, {"learn": source}, asked)
    with pytest.raises(SourceError, match=r"fine is timestamp\[ns\]"):
        catalog.read(spark, source, asked)


def test_manifest_that_means_one_of_several_members_labels_none(spark: SparkSession, tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [
        ("a.zip", zip_bytes([("1.jpg", b"one"), ("2.jpg", b"two")])),
        ("b.zip", zip_bytes([("1.jpg", b"another"), ("3.jpg", b"three")])),
        ("c.tar", tar_bytes([("4.jpg", b"four"), ("5.jpg", b"a"), ("5.jpg", b"b")])),
    ])  # fmt: skip
    (tmp_path / "m.csv").write_text("path,label\n1.jpg,cat\n2.jpg,dog\n4.jpg,cow\n")
    rows = read(spark, find(spark, tmp_path, kind="archives", manifest={"path": "m.csv"}), "image", "label")
    several = "2 members have this name, and the manifest does not say which it means"
    assert sorted((bytes(row["image"]), row["label"], row[MALFORMED]) for row in rows if row["label"]) == [
        (b"another", "cat", several), (b"four", "cow", None), (b"one", "cat", several), (b"two", "dog", None),
    ]  # fmt: skip
    # Those that it does not name, it says nothing wrong of.
    assert {bytes(row["image"]) for row in rows if not row["label"] and not row[MALFORMED]} == {b"three", b"a", b"b"}


def test_an_archive_is_read_once_whatever_links_lead_to_it_and_a_picture_under_each_name(
    spark: SparkSession, tmp_path: Path
) -> None:
    write_folder(tmp_path / "in", [("shard-1.zip", zip_bytes()), ("shard-2.zip", zip_bytes([("9.jpg", b"nine")]))])
    (tmp_path / "in" / "latest.zip").symlink_to("shard-1.zip")
    os.link(tmp_path / "in" / "shard-2.zip", tmp_path / "in" / "shard-2-copy.zip")
    rows = read(spark, find(spark, tmp_path, kind="archives"), "image")
    assert sorted(bytes(row["image"]) for row in rows) == sorted([*(c for _, c in PICTURES), b"nine"])
    write_folder(tmp_path / "classes" / "all", [("1.jpg", b"one")])
    (tmp_path / "classes" / "cat").mkdir()
    (tmp_path / "classes" / "cat" / "c.jpg").symlink_to("../all/1.jpg")
    rows = read(spark, find(spark, tmp_path, kind="images", path="classes"), "image", "label")
    assert labelled(rows) == [("all", b"one"), ("cat", b"one")]


@pytest.mark.parametrize(("end", "write"), list(WRITERS.items()))
def test_large_archives_are_read_by_several_tasks(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, write: Callable[..., bytes]
) -> None:
    monkeypatch.setattr(binary_rows, "TASK_BYTES", 100_000)
    members = [(f"{number:03}.{kind}", os.urandom(3000)) for number in range(60) for kind in ("jpg", "png")]
    (tmp_path / f"large.{end}").write_bytes(write(members))
    (tmp_path / "small.zip").write_bytes(zip_bytes([("s.jpg", b"x")]))
    source = find(spark, tmp_path, kind="archives", path=".")
    frame = catalog.read(spark, source, contract("member", "place", "image"))
    assert frame.rdd.getNumPartitions() == 2 if end == "tar.gz" else frame.rdd.getNumPartitions() > 4
    rows = [(row.member, row.place, bytes(row.image)) for row in frame.collect()]
    assert rows == [(name, place, content) for place, (name, content) in enumerate(members)] + [("s.jpg", 0, b"x")]
    keyed = find(spark, tmp_path, kind="archives", path=f"large.{end}", webdataset=True)
    rows = [(row.key, row.place, bytes(row.jpg), bytes(row.png)) for row in catalog.read(
        spark, keyed, contract("key", "place", "jpg", png="binary")).collect()]  # fmt: skip
    assert rows == [(f"{n:03}", 2 * n, members[2 * n][1], members[2 * n + 1][1]) for n in range(60)]


def test_damage_is_a_bad_row_and_nothing_is_lost(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    stored = zip_bytes(PICTURES, zipfile.ZIP_STORED)
    damaged = stored.replace(PICTURES[0][1], b"X" * len(PICTURES[0][1]))
    files = {
        "a.zip": damaged, "b.zip": stored[:-10], "c.tar": tar_bytes()[:1700], "d.tar.gz": tar_gz_bytes()[:-100],
        "e.zip": b"", "f.txt": b"no archive", "g.tar": tar_bytes([("../x", b"y")]), "h.zip": stored,
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
    rows = read(spark, find(spark, tmp_path, kind="archives", filter="label = 'none'"), "image", "member")
    bad = {}
    for row in rows:
        bad.setdefault(Path(row[SOURCE_FILE]).name, []).append((row["member"], row[MALFORMED].split(":")[0]))
    assert bad == {
        "a.zip": [("cat/1.jpg", "damaged")],
        "b.zip": [(None, "no directory at its end")],
        "c.tar": [("cat/2.jpg", "cut off")],
        "d.tar.gz": bad["d.tar.gz"],
        "e.zip": [(None, "no byte")],
        "f.txt": [(None, "damaged")],
        "g.tar": [("../x", "name leads elsewhere (..)")],
    }
    assert len(bad["d.tar.gz"]) == 1


def test_source_that_changes_is_refused_in_one_line(spark: SparkSession, tmp_path: Path) -> None:
    write_folder(tmp_path / "in")
    (tmp_path / "one.tar").write_bytes(tar_bytes())
    folder, archive = find(spark, tmp_path, kind="images"), find(spark, tmp_path, kind="archives", path="one.tar")
    (tmp_path / "in" / "cat" / "1.jpg").write_bytes(b"longer" * 1000)
    (tmp_path / "one.tar").write_bytes(tar_bytes() + bytes(10240))
    for source, file in ((folder, "in/cat/1.jpg"), (archive, "one.tar")):
        with pytest.raises(SourceError) as caught:
            read(spark, source, "image")
        assert "\n" not in str(caught.value)
        assert f"{file}: changed while it was read" in str(caught.value)
    (tmp_path / "in" / "cat" / "1.jpg").unlink()
    with pytest.raises(SourceError, match=r"cat/1\.jpg: cannot be read .*No such file"):
        read(spark, folder, "image")


def test_what_is_absent_is_named(spark: SparkSession, tmp_path: Path) -> None:
    for settings, message in (
        ({"path": "none"}, "none: no such file or folder"),
        ({"path": "in/*.png"}, r"in/\*\.png: no file there"),
        ({"manifest": {"path": "m.csv"}}, r"m\.csv: no such file or folder; check manifest\.path"),
        ({"manifest": {"path": "in"}}, "in: is a folder"),
    ):
        write_folder(tmp_path / "in")
        with pytest.raises(SourceError, match=message):
            find(spark, tmp_path, kind="images", **settings)
    (tmp_path / "in" / "link.jpg").symlink_to("nowhere")
    with pytest.raises(SourceError, match=r"link\.jpg: is a link to nowhere, which is not there"):
        find(spark, tmp_path, kind="images")
    (tmp_path / "in" / "link.jpg").unlink()
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    with pytest.raises(SourceError, match="a folder that it is in"):
        find(spark, tmp_path, kind="images")


def test_new_files_are_read_alone(spark: SparkSession, tmp_path: Path) -> None:
    """As when they are appended to a table."""
    write_folder(tmp_path / "in", PICTURES[:2])
    known = {part.name for part in find(spark, tmp_path, kind="images").parts}
    write_folder(tmp_path / "in", PICTURES[2:])
    source = find(spark, tmp_path, kind="images")
    new = source.with_parts(tuple(part for part in source.parts if part.name not in known))
    assert [row["path"] for row in read(spark, new, "path")] == [name for name, _ in PICTURES[2:]]


@pytest.mark.skipif(not (REAL_DATA / "cifar10-jpeg").is_dir(), reason="no cifar10-jpeg in MLSPARK_DATA")
def test_cifar_is_whole(spark: SparkSession) -> None:
    """24,000 members of two zips, whose names repeat across folders, against the table of their SHA-256."""
    for name, expected in (("train", 20_000), ("test", 4_000)):
        manifest = {"path": f"cifar10-jpeg/{name}.csv"}
        source = find(spark, REAL_DATA, kind="archives", path=f"cifar10-jpeg/{name}.zip", manifest=manifest)
        pictures = catalog.read(spark, source, contract("member", "image", "class", "sha256", label="int"))
        # The last folder is the class that the manifest says, and the content is that of its hash.
        is_good = f"{MALFORMED} is null and sha2(image, 256) = sha256 and split(member, '/')[1] = class"
        [counts] = pictures.selectExpr("count(*)", f"count_if({is_good})", "count(distinct member)").collect()
        assert tuple(counts) == (expected, expected, expected)
