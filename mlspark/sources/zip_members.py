"""Members of zip files, read by their directory in ranges. Executors and driver."""

import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mlspark.sources.members import Archive, Member, Span, Unreadable, relative
from mlspark.sources.opened_files import Excerpt

MAGIC = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
"""How zip files begin: a member, an empty file, one of several disks."""
_END, _LOCATOR, _END64, _ENTRY = b"PK\5\6", b"PK\6\7", b"PK\6\6", b"PK\1\2"
_END_SIZE, _LOCATOR_SIZE, _END64_SIZE, _ENTRY_SIZE = 22, 20, 56, 46
_ENTRIES_AT_A_TIME = 500
_COST_OF_A_MEMBER = 2**14
"""Bytes that could be read in the time that a member takes besides its own."""
_MOST_WEIGHT = 2**26
"""Most of a span that has more of small members than the bytes that are asked for: 4,000 of them."""


@dataclass(frozen=True)
class _Directory:
    """A zip file's central directory."""

    start: int
    size: int
    declared_start: int
    """Where the file says that it starts; less than `start` where something stands before the zip file."""
    num_entries: int
    """As the file says; of more than 65,535, some writers say the rest of a division by 65,536."""
    after: int
    """Bytes behind the zip file's end."""


def spans(archive: Archive, span_bytes: int, may_cut: Callable[[str], bool] | None) -> list[Span]:
    """Return the members in spans of about so many bytes, from the directory alone; one span where it is damaged.

    Spans are of equal weight, as many small members take longer than few large ones: more bytes of those count as a span.
    `may_cut` is asked for each member, in order, whether a span may begin with it; None: any may.
    """
    try:
        directory = _directory(archive)
    except Unreadable:
        return [Span(0, archive.size, 0, True)]
    weight_of_all = archive.size + _COST_OF_A_MEMBER * directory.num_entries
    span_weight = max(span_bytes, min(_MOST_WEIGHT, span_bytes * weight_of_all // max(1, archive.size)))
    found: list[Span] = []
    start, first, weight, position = directory.start, 0, 0, directory.start
    for place, record in enumerate(_records(archive, directory.start, directory.start + directory.size)):
        [length] = struct.unpack_from("<H", record, 28)
        name = relative(record[_ENTRY_SIZE : _ENTRY_SIZE + length].decode("utf-8", "replace"))
        may_begin = may_cut is None or (not name.endswith("/") and may_cut(name))
        if may_begin and weight > span_weight:
            found.append(Span(start, position, first, False))
            start, first, weight = position, place, 0
        [compressed] = struct.unpack_from("<L", record, 20)
        weight += compressed + _COST_OF_A_MEMBER
        position += len(record)
    return [*found, Span(start, directory.start + directory.size, first, True)]


def members(archive: Archive, span: Span | None) -> Iterator[Member]:
    """Yield the files of a zip file, or of a span of it, in the order of its directory; folders are none.

    A zip file without a whole directory is one member without content, and so is an entry that cannot be read.
    """
    try:
        directory = _directory(archive)
    except Unreadable as error:
        yield Member("", 0, None, str(error))
        return
    start, end, place = directory.start, directory.start + directory.size, 0
    if span is not None:
        start, end, place = span.start, span.end, span.first
    batch: list[bytes] = []
    position = start
    for record in _records(archive, start, end):
        batch.append(record)
        position += len(record)
        if len(batch) == _ENTRIES_AT_A_TIME:
            yield from _members(archive, directory, batch, place)
            place, batch = place + len(batch), []
    yield from _members(archive, directory, batch, place)
    place += len(batch)
    if position < end:
        problem: str | None = f"no entry at byte {position:,}, {end - position:,} bytes before its end"
        yield Member("", place, None, f"directory is damaged: {problem}")
    elif (span is None or span.is_last) and (problem := _around(archive, directory, place)):
        yield Member("", place, None, problem)


def _around(archive: Archive, directory: _Directory, num_entries: int) -> str | None:
    """Return what is wrong with a zip file whose entries are all read: members that are not among them."""
    archive.file.seek(0)
    if directory.start > directory.declared_start and archive.file.read(4) == MAGIC[0]:
        return (
            "members of another zip file before its own: is it several, one after the other, or the rest of one that is cut "
            "short, with a zip file in it?"
        )
    if (num_entries - directory.num_entries) % 2**16:
        return f"directory is damaged: {num_entries:,} entries where its end says {directory.num_entries:,}"
    archive.file.seek(archive.size - directory.after)
    while block := archive.file.read(2**20):
        if block.strip(b"\0"):
            return "more data after its end"
    return None


def _directory(archive: Archive) -> _Directory:
    """Return where the directory is; raises Unreadable for a file that is cut short or none of one disk."""
    window = min(archive.size, 2**16 + _END_SIZE + _LOCATOR_SIZE + _END64_SIZE)
    archive.file.seek(archive.size - window)
    tail = archive.file.read(window)
    place = _end(tail)
    if place < 0:
        raise Unreadable("no directory at its end: the file is cut short or no zip file, its members cannot be known")
    disk, disk_start, _, count, size, declared, comment = struct.unpack_from("<4H2LH", tail, place + 4)
    end = archive.size - window + place
    after = max(0, len(tail) - place - _END_SIZE - comment)
    locator = place - _LOCATOR_SIZE
    if locator >= _END64_SIZE and tail[locator : locator + 4] == _LOCATOR:
        place = locator - _END64_SIZE
        if tail[place : place + 4] != _END64:
            raise Unreadable("its directory cannot be found: the end of a 64-bit zip file is damaged")
        disk, disk_start, _, count, size, declared = struct.unpack_from("<2L4Q", tail, place + 16)
        end = archive.size - window + place
    if disk or disk_start:
        raise Unreadable("one of several disks: join them into one zip file")
    if size > end:
        raise Unreadable(f"damaged: a directory of {size:,} bytes in a file of {archive.size:,}")
    return _Directory(end - size, size, declared, count, after)


def _end(tail: bytes) -> int:
    """Return where the end of a zip file begins in a file's last bytes: its comment, which may be like one, ends the file.

    Of a file with more behind it the last place that looks like an end; -1 without one.
    """
    last = place = tail.rfind(_END, 0, len(tail) - _END_SIZE + len(_END))
    while place >= 0:
        [comment] = struct.unpack_from("<H", tail, place + _END_SIZE - 2)
        if place + _END_SIZE + comment == len(tail):
            return place
        place = tail.rfind(_END, 0, place)
    return last


def _records(archive: Archive, start: int, end: int) -> Iterator[bytes]:
    """Yield the directory's entries as they stand there, up to the first that is none."""
    buffer, position = b"", 0
    while True:
        if len(buffer) - position < 2**18:  # an entry has at most 3 x 64 KiB
            start, buffer, position = start + position, buffer[position:], 0
            archive.file.seek(start + len(buffer))  # whoever reads members moves the file
            buffer += archive.file.read(min(2**20, max(0, end - start - len(buffer))))
        if len(buffer) - position < _ENTRY_SIZE or buffer[position : position + 4] != _ENTRY:
            return
        size = _ENTRY_SIZE + sum(struct.unpack_from("<3H", buffer, position + 28))
        if position + size > len(buffer):
            return
        yield buffer[position : position + size]
        position += size


def _members(archive: Archive, directory: _Directory, records: list[bytes], place: int) -> Iterator[Member]:
    """Yield the files of some entries; when Python's zipfile refuses them together, of one after the other."""
    if not records:
        return
    try:
        file = zipfile.ZipFile(_with_directory(archive, directory, b"".join(records)))
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        if len(records) == 1 and isinstance(error, UnicodeDecodeError):
            [length] = struct.unpack_from("<H", records[0], 28)
            name = records[0][_ENTRY_SIZE : _ENTRY_SIZE + length].decode("utf-8", "surrogateescape")
            yield archive.member(name, place, 0, bytes)
            return
        if len(records) == 1:
            yield Member("", place, None, f"entry of the directory cannot be read: {error}")
            return
        for number, record in enumerate(records):
            yield from _members(archive, directory, [record], place + number)
        return
    for number, info in enumerate(file.infolist()):
        if not info.is_dir() or info.file_size:
            # zipfile ends a name at its NUL.
            name = info.orig_filename if "\0" in info.orig_filename else info.filename
            content = partial(_content, file, info, archive.max_bytes)
            yield archive.member(name, place + number, info.file_size, content, _problem(info))


def _with_directory(archive: Archive, directory: _Directory, entries: bytes) -> io.RawIOBase:
    """Return the zip file as if it had only these entries."""
    after = directory.start + len(entries)
    end64 = struct.pack(
        "<4sQ2H2L4Q", _END64, _END64_SIZE - 12, 45, 45, 0, 0, 1, 1, len(entries), directory.declared_start
    )
    locator = struct.pack("<4sLQL", _LOCATOR, 0, after, 1)
    end = struct.pack("<4s4H2LH", _END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return Excerpt(archive.file, 0, directory.start, entries + end64 + locator + end)


def _problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 1:
        return "encrypted"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link, not a file"
    return "a folder with data" if info.is_dir() else None


def _content(file: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    try:
        with file.open(info) as member:
            content = member.read(max_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise Unreadable(f"damaged: {error}" if str(error) else "damaged: its data ends too early") from error
    except (NotImplementedError, RuntimeError) as error:
        raise Unreadable(f"cannot be read: {error}") from error
    if len(content) != info.file_size:
        raise Unreadable(f"damaged: {len(content):,} bytes where its entry says {info.file_size:,}")
    return content
