"""Members of archives without Spark: each whole or with its reason, the same in one go and in spans, none lost."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
from types import ModuleType

import numpy as np
import pytest

from mlspark.sources import tar_members, webdataset, zip_members
from mlspark.sources.members import Archive, Member
from tests.sources.picture_files import PICTURES, WRITERS, tar_bytes, tar_gz_bytes, zip_bytes

MANY = [(f"{number % 7}/{number:04}.jpg", bytes([number % 251]) * (number % 900)) for number in range(1500)]
MODULES = {"zip": zip_members, "tar": tar_members, "tar.gz": tar_members}


def archive(content: bytes, max_bytes: int = 2**20, *, reads: bool = True) -> Archive:
    return Archive(io.BytesIO(content), len(content), max_bytes, reads)


def read(kind: ModuleType, content: bytes, max_bytes: int = 2**20) -> list[tuple[str, bytes | None, str | None]]:
    return [(m.name, m.content, m.problem) for m in kind.members(archive(content, max_bytes), None)]


@pytest.mark.parametrize("kind", WRITERS)
def test_members_come_whole_in_their_order(kind: str) -> None:
    members = list(MODULES[kind].members(archive(WRITERS[kind](MANY)), None))
    assert [(member.name, member.content) for member in members] == MANY
    assert [member.place for member in members] == list(range(len(MANY)))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("span_bytes", [1, 20_000, 2**40])
def test_spans_hold_every_member_once(kind: str, span_bytes: int) -> None:
    content = WRITERS[kind](MANY)
    module = MODULES[kind]
    spans = module.spans(archive(content), span_bytes, None)
    assert (len(spans) > 5) == (span_bytes < 2**40 and kind != "tar.gz")
    members = [member for span in spans for member in module.members(archive(content), span)]
    assert members == list(module.members(archive(content), None))


def test_spans_of_a_zip_are_as_many_as_its_bytes_ask_for_and_equally_long() -> None:
    """Of 20,000 CIFAR pictures in 21 MB there were 78 spans where 5 were asked for."""
    content = zip_bytes([(str(number), b"x" * (1 + number % 90)) for number in range(2000)], zipfile.ZIP_STORED)
    spans = zip_members.spans(archive(content), len(content) // 5, None)
    firsts = [span.first for span in spans] + [2000]
    assert len(spans) == 5
    assert max(np.diff(firsts)) < 1.1 * min(np.diff(firsts))


@pytest.mark.parametrize("kind", WRITERS)
def test_names_are_read_without_contents(kind: str) -> None:
    members = list(MODULES[kind].members(archive(WRITERS[kind](), reads=False), None))
    assert [(member.name, member.content) for member in members] == [(name, None) for name, _ in PICTURES]


@pytest.mark.parametrize("kind", WRITERS)
def test_members_of_one_name_are_different(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says that it writes a name twice
        content = WRITERS[kind]([("a.jpg", b"one"), ("a.jpg", b"two")])
    members = list(MODULES[kind].members(archive(content), None))
    assert members == [Member("a.jpg", 0, b"one"), Member("a.jpg", 1, b"two")]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../../etc/passwd", "name leads elsewhere (..)"),
        ("a/../../b.jpg", "name leads elsewhere (..)"),
        ("/etc/passwd", "absolute name"),
        ("C:\\a.jpg", "absolute name"),
        ("..\\a.jpg", "name leads elsewhere (..)"),
        ("a..b/c..jpg", None),
    ],
)
def test_names_that_lead_elsewhere_are_bad(kind: str, name: str, problem: str | None) -> None:
    assert read(MODULES[kind], WRITERS[kind]([(name, b"x"), ("b", b"y")])) == [
        (name, None if problem else b"x", problem),
        ("b", b"y", None),
    ]


@pytest.mark.parametrize("kind", WRITERS)
def test_member_over_the_limit_is_not_read(kind: str) -> None:
    bomb = WRITERS[kind]([("bomb", bytes(20_000_000)), ("after", b"y")])
    tracemalloc.start()
    members = read(MODULES[kind], bomb, max_bytes=100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert members == [("bomb", None, "20,000,000 bytes, more than max_bytes=100,000"), ("after", b"y", None)]
    assert peak < 3_000_000


@pytest.mark.parametrize("kind", WRITERS)
def test_archive_without_members_has_none(kind: str) -> None:
    assert read(MODULES[kind], WRITERS[kind]([])) == []


def test_folders_of_a_zip_are_no_members_and_odd_zips_are_read() -> None:
    stored = zip_bytes([("a/", b""), ("a/b", b"x")], zipfile.ZIP_STORED)
    assert read(zip_members, b"#!self-extracting\n" + stored) == [("a/b", b"x", None)]
    assert [read(zip_members, zip_bytes(PICTURES, kind)) for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)] == [
        [(name, content, None) for name, content in PICTURES]
    ] * 2
    streamed = io.BytesIO()
    with zipfile.ZipFile(_Unseekable(streamed), "w") as file:  # sizes after the data, which Java's stream refuses
        file.writestr("a.jpg", b"x" * 100)
        file.comment = b"PK" * 1000
    assert read(zip_members, streamed.getvalue()) == [("a.jpg", b"x" * 100, None)]


class _Unseekable(io.RawIOBase):
    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        return self._file.write(content)


def _entry(content: bytes, number: int) -> int:
    """Return where the entry of a zip's directory begins."""
    place = -1
    for _ in range(number + 1):
        place = content.index(b"PK\1\2", place + 1)
    return place


def _changed(content: bytes, place: int, to: bytes) -> bytes:
    return content[:place] + to + content[place + len(to) :]


def test_bad_members_of_a_zip_say_why_and_the_others_are_read() -> None:
    whole = zip_bytes(PICTURES, zipfile.ZIP_STORED)
    good = [(name, content, None) for name, content in PICTURES]
    entry = _entry(whole, 1)
    data = whole.index(PICTURES[1][1])
    for damaged, reason in (
        (_changed(_changed(whole, entry + 8, b"\1"), 6 + whole.index(b"PK\3\4", 40), b"\1"), "encrypted"),
        (_changed(whole, entry + 10, b"\x09"), "That compression method is not supported"),
        (_changed(whole, data, b"X"), "damaged: Bad CRC-32 for file 'cat/2.jpg'"),
        (_changed(whole, entry + 24, struct.pack("<L", 10)), "Bad CRC-32"),
        (_changed(whole, entry + 42, struct.pack("<L", 5)), "damaged: Bad magic number for file header"),
        (_changed(whole, entry + 42, struct.pack("<L", 2**31)), "damaged: Truncated file header"),
        (_changed(whole, entry + 40, b"\xff\xa1"), "a link, not a file"),
    ):
        members = read(zip_members, damaged)
        assert [*members[:1], *members[2:]] == [*good[:1], *good[2:]], reason
        name, content, problem = members[1]
        assert (name, content) == ("cat/2.jpg", None)
        assert reason in str(problem)
    not_read = read(zip_members, _changed(whole, entry + 6, b"\xff"))  # needs version 25.5 of the format
    assert [*not_read[:1], *not_read[2:]] == [*good[:1], *good[2:]]
    assert not_read[1] == ("", None, "entry of the directory cannot be read: zip file version 25.5")


def test_damaged_zip_says_so_once() -> None:
    whole = zip_bytes()
    good = [(name, content, None) for name, content in PICTURES]
    [(name, _, problem)] = read(zip_members, whole[:-30])
    assert (name, problem) == (
        "", "no directory at its end: the file is cut short or no zip file, its members cannot be known",
    )  # fmt: skip
    *members, (name, _, problem) = read(zip_members, _changed(whole, _entry(whole, 2), b"XX"))
    assert (members, name) == (good[:2], "")
    assert str(problem).startswith("directory is damaged: no entry at byte")


def test_truncated_tar_names_the_member_that_is_cut_off() -> None:
    good = [(name, content, None) for name, content in PICTURES]
    for whole in (tar_bytes(), tar_gz_bytes()):
        content = whole[: len(whole) * 2 // 3] if whole[:1] == b"\x1f" else whole[:3000]
        *members, (_, nothing, problem) = read(tar_members, content)
        assert members == good[: len(members)]
        assert 0 < len(members) < len(good)
        assert nothing is None
        assert str(problem).startswith(("cut off: ", "damaged: "))


@pytest.mark.parametrize(
    ("damage", "num_good", "reason"),
    [
        (lambda tar: tar[: 512 + 512], 1, "ends without the blocks of zeros that end a tar file"),
        (lambda tar: tar[:1024] + b"\x07" * 512 + tar[1536:], 1, "damaged: "),
        (lambda tar: tar[: 1024 + 100], 1, "damaged: truncated header at byte 1,024"),
        (lambda tar: tar + tar_bytes([("b", b"y")]), 4, "more data after its end: is it several tar files"),
        (lambda tar: b"no archive" * 100, 0, "damaged: "),
        (lambda tar: gzip.compress(tar)[:-8] + bytes(8), 4, "CRC check failed"),
        (lambda tar: gzip.compress(tar) + b"rubbish", 4, "Not a gzipped file"),
        (lambda tar: gzip.compress(tar) + gzip.compress(b""), 4, None),
    ],
)  # fmt: skip
def test_damaged_tar_says_where_and_what_was_before_is_read(damage: object, num_good: int, reason: str | None) -> None:
    assert callable(damage)
    members = read(tar_members, damage(tar_bytes()))
    assert members[:num_good] == [(name, content, None) for name, content in PICTURES[:num_good]]
    if reason is None:
        assert members[num_good:] == []
    else:
        [(name, content, problem)] = members[num_good:]
        assert (name, content) == ("", None)
        assert reason in str(problem)


def test_headers_of_a_tar_that_lie_end_it() -> None:
    """A size below 0 makes tarfile go round in a circle, a long name of gigabytes is read whole, links nest."""
    info = tarfile.TarInfo("a.jpg")
    info.size = 0
    header = info.tobuf(tarfile.GNU_FORMAT)

    def sized(size: int, kind: bytes = b"0") -> bytes:
        content = bytearray(header)
        content[124:136] = b"\xff" * 4 + size.to_bytes(8, "big", signed=True) if size < 0 else b"%011o\0" % size
        content[156:157] = kind
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content)
        return bytes(content)

    for damaged in (sized(-512), sized(2**32, b"L"), sized(0, b"L") * 3000):
        members = read(tar_members, damaged + bytes(1024))
        assert [(name, content) for name, content, _ in members] == [("", None)]


def test_what_is_no_file_in_a_tar_is_a_bad_row() -> None:
    link, device, folder = tarfile.TarInfo("link"), tarfile.TarInfo("device"), tarfile.TarInfo("folder")
    link.type, link.linkname, device.type, folder.type = (
        tarfile.SYMTYPE,
        "/etc/passwd",
        tarfile.CHRTYPE,
        tarfile.DIRTYPE,
    )
    assert read(tar_members, tar_bytes([("a", b"x")], [link, device, folder])) == [
        ("link", None, "a link to /etc/passwd, not a file"),
        ("device", None, "not a file"),
        ("a", b"x", None),
    ]


def keyed(
    members: list[tuple[str, bytes]], wanted: tuple[str, ...] = ("jpg", "cls", "json")
) -> list[dict[str, object]]:
    keys = webdataset.Keys()
    for name, _ in members:
        keys.begins(name)
    listed = (Member(name, place, content) for place, (name, content) in enumerate(members))
    return list(webdataset.rows(listed, wanted, frozenset(keys.repeated), ""))


def test_files_of_one_key_are_a_row() -> None:
    assert [webdataset.key_of(name) for name in ("a.b/c.d.e.JPG", "x", ".x.jpg", "a/.b", "a.")] == [
        ("a.b/c", "d.e.jpg"), None, None, None, None,
    ]  # fmt: skip
    rows = keyed([("d/1.jpg", b"\xff"), ("d/1.cls", b"3\n"), ("d/2.JPG", b"\xfe"), ("d/2.json", b'{"a": 1}\n')])
    malformed = "_mlspark_malformed"
    assert rows == [
        {"key": "d/1", "place": 0, "jpg": b"\xff", "cls": "3", malformed: None},
        {"key": "d/2", "place": 2, "jpg": b"\xfe", "json": '{"a": 1}\n', malformed: None},
    ]


@pytest.mark.parametrize(
    ("members", "problems"),
    [
        (
            [("1.jpg", b"a"), ("2.jpg", b"b"), ("1.cls", b"0")],
            ["do not stand one after", None, "do not stand one after"],
        ),
        ([("1.jpg", b"a"), ("1.JPG", b"b")], ["jpg: twice"]),
        ([("1.jpg", b"a"), ("x", b"b"), ("x", b"b")], [None, "without an extension", "without an extension"]),
        ([("1.cls", b"\xff")], ["cls: not UTF-8"]),
        ([("1.txt", b"\xff")], [None]),  # nobody wants it
    ],
)
def test_files_that_webdataset_would_drop_or_mix_are_bad_rows(
    members: list[tuple[str, bytes]], problems: list[str | None]
) -> None:
    rows = keyed(members)
    assert len(rows) == len(problems)
    for row, problem in zip(rows, problems, strict=True):
        found = row["_mlspark_malformed"]
        assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_spans_end_between_keys(kind: str) -> None:
    members = [(f"{number:03}.{end}", b"x" * 400) for number in range(100) for end in ("jpg", "cls", "json")]
    content, keys = WRITERS[kind](members), webdataset.Keys()
    spans = MODULES[kind].spans(archive(content), 1, keys.begins)
    assert (len(spans), keys.repeated) == (100, set())
    assert [len(list(MODULES[kind].members(archive(content), span))) for span in spans] == [3] * 100
