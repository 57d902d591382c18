"""Archives as other programs write or leave them: each member read, or named with its reason; none lost in silence."""

import bz2
import io
import lzma
import os
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mlspark.errors import SourceError
from mlspark.sources import archives, listing, opened_files, tar_members, webdataset, zip_members
from mlspark.sources.members import Archive
from tests.sources.picture_files import tar_bytes, write_folder, zip_bytes

TWO = [("a/1.jpg", b"one"), ("a/2.jpg", b"two")]
Found = list[tuple[str, bytes | None, str | None]]


def read(kind: ModuleType, content: bytes, max_bytes: int = 2**20) -> Found:
    """Members with what is wrong with them; the same when they are read in as many spans as can be."""

    def opened() -> Archive:
        return Archive(io.BytesIO(content), len(content), max_bytes)

    found = [(member.name, member.content, member.problem) for member in kind.members(opened(), None)]
    spans = kind.spans(opened(), 1, None)
    apart = [(m.name, m.content, m.problem) for span in spans for m in kind.members(opened(), span)]
    assert apart == found
    return found


def good(members: list[tuple[str, bytes]]) -> Found:
    return [(name, content, None) for name, content in members]


INNER = zip_bytes([("inner.jpg", b"x")], zipfile.ZIP_STORED)
OUTER = zip_bytes([("first.jpg", b"1"), ("inner.zip", INNER)], zipfile.ZIP_STORED)
OTHERS = "members of another zip file before its own: is it several, one after the other"


@pytest.mark.parametrize(
    ("content", "members", "reason"),
    [
        (zip_bytes([("lost.jpg", b"x")]) + zip_bytes(TWO), good(TWO), OTHERS),
        (OUTER[: OUTER.index(INNER) + len(INNER)], good([("inner.jpg", b"x")]), OTHERS),
        (OUTER[: OUTER.index(INNER) + len(INNER) + 20], good([("inner.jpg", b"x")]), OTHERS),
        (OUTER, good([("first.jpg", b"1"), ("inner.zip", INNER)]), None),
        (zip_bytes(TWO) + b"\nnot of it", good(TWO), "more data after its end"),
        (zip_bytes(TWO) + bytes(1000), good(TWO), None),
        (b"#!a program\n" + zip_bytes(TWO), good(TWO), None),
    ],
)
def test_what_stands_beside_a_zip_file_is_named(content: bytes, members: Found, reason: str | None) -> None:
    found = read(zip_members, content)
    assert found[: len(members)] == members
    assert [(name, data) for name, data, _ in found[len(members) :]] == [("", None)] * (reason is not None)
    assert reason is None or str(found[-1][2]).startswith(reason)


def test_a_zip_file_whose_end_counts_other_entries_is_named() -> None:
    content = zip_bytes(TWO)
    end = content.rindex(b"PK\5\6")
    *members, (_, _, problem) = read(zip_members, content[: end + 8] + struct.pack("<HH", 7, 7) + content[end + 12 :])
    assert (members, problem) == (good(TWO), "directory is damaged: 2 entries where its end says 7")


def test_a_comment_may_be_like_the_end_of_a_zip_file() -> None:
    written = io.BytesIO(zip_bytes(TWO))
    with zipfile.ZipFile(written, "a") as file:
        file.comment = b"made of \0PK\5\6 and other bytes, more than the 22 that an end has"
    assert read(zip_members, written.getvalue()) == good(TWO)


def test_zip64_is_read() -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name, content in TWO:
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(content)
    assert read(zip_members, written.getvalue()) == good(TWO)
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as file:
        for number in range(2**16):
            file.writestr(zipfile.ZipInfo(str(number)), b"")
    archive = Archive(many, len(many.getvalue()), 1)
    members = list(zip_members.members(archive, None))
    assert [member.name for member in members] == [str(number) for number in range(2**16)]
    assert {member.problem for member in members} == {None}


def test_names_in_a_zip_file_that_are_cut_or_changed_elsewhere_are_bad() -> None:
    nul = zip_bytes([("aXb.jpg", b"x")]).replace(b"aXb.jpg", b"a\0b.jpg")
    assert read(zip_members, nul) == [("a\0b.jpg", None, "name with a NUL")]
    no_text = zip_bytes([("é.jpg", b"x")]).replace("é".encode(), b"\xff\xff")
    assert read(zip_members, no_text) == [("\\xff\\xff.jpg", None, "name is not UTF-8")]
    old = zip_bytes([("eX.jpg", b"x")]).replace(b"eX", b"e\x82")  # the characters of DOS
    assert read(zip_members, old) == [("eé.jpg", b"x", None)]
    folder = zip_bytes([("folder/", b"x"), ("a", b"y")])
    assert read(zip_members, folder) == [("folder/", None, "a folder with data"), ("a", b"y", None)]


def test_names_of_one_place_are_one_name() -> None:
    for kind, write in ((zip_members, zip_bytes), (tar_members, tar_bytes)):
        members = [("./a/1.jpg", b"x"), (".//./2.jpg", b"y"), (".x", b"z"), ("A/1.jpg", b"other")]
        names = ["a/1.jpg", "2.jpg", ".x", "A/1.jpg"]
        assert [name for name, _, _ in read(kind, write(members))] == names
        keys = webdataset.Keys()
        split = [("./1.jpg", b"x"), ("./2.jpg", b"x"), ("1.cls", b"x")]
        content = write(split)
        kind.spans(Archive(io.BytesIO(content), len(content), 9), 1, keys.begins)
        assert keys.repeated == {"1"}


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        (bz2.compress, "bzip2"),
        (lzma.compress, "xz"),
        (lambda content: b"\x28\xb5\x2f\xfd" + content, "zstd"),
        (lambda content: b"7z\xbc\xaf\x27\x1c" + content, "7-Zip"),
        (lambda content: b"Rar!\x1a\x07\x01\0" + content, "RAR"),
    ],
)
def test_what_is_packed_otherwise_is_named(pack: Callable[[bytes], bytes], name: str) -> None:
    [(_, _, problem)] = read(tar_members, pack(tar_bytes(TWO)))
    assert str(problem).startswith(f"packed by {name}, and read are zip, tar and tar.gz: write it anew as one of those")


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix", "ustar", "v7"])
def test_what_gnu_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    """Long names, sparse files, a file of two names, a link, a pipe."""
    write_folder(tmp_path, [("1.jpg", b"one")])
    os.link(tmp_path / "1.jpg", tmp_path / "2.jpg")
    (tmp_path / "3.jpg").symlink_to("1.jpg")
    os.mkfifo(tmp_path / "4.jpg")
    with (tmp_path / "5.jpg").open("wb") as sparse:
        sparse.seek(100_000)
        sparse.write(b"end")
    long = f"{'a' * 120}/{'b' * 120}/c.jpg"
    names = ["1.jpg", "2.jpg", "3.jpg", "5.jpg"]
    if form != "v7":
        names.append("4.jpg")
    if form in ("gnu", "oldgnu", "posix"):
        write_folder(tmp_path, [(long, b"long")])
        names.append(long)
    options = ["--sparse"] if form in ("gnu", "oldgnu", "posix") else []
    done = subprocess.run(
        ["tar", "--create", f"--format={form}", *options, *names], cwd=tmp_path, stdout=subprocess.PIPE, check=True
    )
    found = {name: (content, problem) for name, content, problem in read(tar_members, done.stdout)}
    expected: dict[str, tuple[bytes | None, str | None]] = {
        "1.jpg": (b"one", None),
        "2.jpg": (None, "a link to 1.jpg, not a file"),
        "3.jpg": (None, "a link to 1.jpg, not a file"),
        "4.jpg": (None, "not a file"),
        "5.jpg": (bytes(100_000) + b"end", None),
        long: (b"long", None),
    }
    assert found == {name: expected[name] for name in names}


def test_files_of_no_byte_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("1.jpg", b""), ("1.txt", b""), ("2.jpg", b"x")]))
    size = (tmp_path / "a.tar").stat().st_size
    piece = archives._to_bytes([archives._Item(str(tmp_path / "a.tar"), size)])
    rows = list(archives._rows(2**20, "", True, piece))
    assert [row["_mlspark_malformed"] for row in rows] == ["no byte", "no byte", None]
    keyed = list(archives._keys(2**20, "", ("jpg", "txt"), piece))
    assert [(row["key"], row.get("txt"), row["_mlspark_malformed"]) for row in keyed] == [
        ("1", "", "jpg: no byte"), ("2", None, None),
    ]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="to drop rights takes having them")
def test_what_may_not_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [("a/1.jpg", b"x"), ("b/2.jpg", b"y")])
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    (tmp_path / "in" / "a" / "1.jpg").chmod(0)
    (tmp_path / "in" / "b").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(SourceError, match=r"a/1\.jpg: cannot be read \(.*Permission denied"):
            opened_files.content(str(tmp_path / "in" / "a" / "1.jpg"), 1)
        with pytest.raises(SourceError, match=r"in: cannot be read \(.*Permission denied"):
            listing.parts(str(tmp_path / "in"))
    finally:
        os.seteuid(0)
