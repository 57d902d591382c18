"""Members of tar files: plain ones in ranges, compressed ones as a stream. Executors and driver."""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, Self, cast

from mlspark.errors import one_line
from mlspark.sources.members import Archive, Member, Span, Unreadable, relative
from mlspark.sources.opened_files import Excerpt

_GZIP = b"\x1f\x8b"
"""How files begin that gzip has compressed."""
_OTHERS = {
    b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"\x1f\x9d": "compress",
    b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!": "RAR",
}  # fmt: skip
"""How files begin that are no tar file until something else has unpacked them."""
_BLOCK = tarfile.BLOCKSIZE
_DAMAGES = (
    tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, RecursionError, Unreadable,
)  # fmt: skip
_NO_END = "ends without the blocks of zeros that end a tar file: it may be cut short"


class _Header(tarfile.TarInfo):
    """A header that says on its archive why the last one was none: tarfile itself ends in silence at a damaged one."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        archive = cast(Any, tarfile_)
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            name = type(error).__name__
            archive.ending = {"EOFHeaderError": "", "EmptyHeaderError": _NO_END}.get(
                name, f"damaged: {error} at byte {archive.offset:,}"
            )
            raise


class _Bounded:
    """A file that refuses to read more at once than a member may have: tarfile reads the headers of long names whole."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file, self._most = file, max(max_bytes, 2**20) + _BLOCK
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._most:
            raise Unreadable(f"damaged: a header asks for {size:,} bytes")
        return self._file.read(size)


def spans(archive: Archive, span_bytes: int, may_cut: Callable[[str], bool] | None) -> list[Span]:
    """Return the members in spans of about so many bytes, from their headers alone; what is compressed is one span.

    `may_cut` is asked for each member, in order, whether a span may begin with it; None: any may.
    """
    whole = Span(0, archive.size, 0, True)
    file = _file(archive, whole)
    cuts = not isinstance(file, gzip.GzipFile)
    if not cuts and may_cut is None:
        return [whole]
    found: list[Span] = []
    start, first, place = 0, 0, -1
    try:
        for tar, info in _headers(file, archive.max_bytes):
            place += 1
            may_begin = may_cut is None or (not info.isdir() and may_cut(relative(info.name)))
            cuts = cuts and not tar.pax_headers  # those are of all members that follow
            if cuts and may_begin and info.offset - start >= span_bytes:
                found.append(Span(start, info.offset, first, False))
                start, first = info.offset, place
    except _DAMAGES:
        pass  # the last span names it
    return [*found, Span(start, archive.size, first, True)]


def members(archive: Archive, span: Span | None) -> Iterator[Member]:
    """Yield the files of a tar file, or of a span of it, in order; folders are none.

    What is damaged, cut off or follows the end is a last member without content.
    """
    span = span or Span(0, archive.size, 0, True)
    file, place = _file(archive, span), span.first
    try:
        for tar, info in _headers(file, archive.max_bytes):
            if not info.isdir():
                member = archive.member(info.name, place, info.size, partial(_content, tar, info), _problem(info))
                yield member
                if member.problem is not None and member.problem.startswith(_CUT):
                    return
            place += 1
        problem = _after(file)
    except _DAMAGES as error:
        problem = str(error) if isinstance(error, Unreadable) else f"damaged: {one_line(str(error))}"
    if problem and place == 0 and (packed_by := _other(archive)):
        problem = f"packed by {packed_by}, and read are zip, tar and tar.gz: write it anew as one of those"
    if problem:
        yield Member("", place, None, f"{problem}; members after it, if any, cannot be known")


def _other(archive: Archive) -> str | None:
    """Return what has packed a file that has no member and is not compressed with gzip."""
    archive.file.seek(0)
    start = archive.file.read(8)
    return next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)


def _file(archive: Archive, span: Span) -> IO[bytes]:
    """Return a span as a tar file of its own, no longer compressed."""
    archive.file.seek(0)
    is_compressed = archive.file.read(len(_GZIP)) == _GZIP
    archive.file.seek(0)
    if is_compressed:
        return cast(IO[bytes], gzip.GzipFile(fileobj=archive.file))
    return cast(IO[bytes], Excerpt(archive.file, span.start, span.end, b"" if span.is_last else bytes(2 * _BLOCK)))


def _headers(file: IO[bytes], max_bytes: int) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the headers of a tar file; raises one of `_DAMAGES` where they do not end as they should."""
    tar: Any = tarfile.TarFile(fileobj=cast(IO[bytes], _Bounded(file, max_bytes)), tarinfo=_Header, errorlevel=2)
    before = -1
    while (info := tar.next()) is not None:
        tar.members.clear()  # a million of them need gigabytes
        if info.size < 0 or tar.offset <= before:  # tarfile would go round in a circle
            raise Unreadable(f"damaged: {info.name} has a size of {info.size:,}")
        before = tar.offset
        yield tar, info
    if ending := getattr(tar, "ending", ""):
        raise Unreadable(ending)


_CUT = "cut off"


def _problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return f"a link to {info.linkname}, not a file"
    return None if info.isreg() else "not a file"


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None, info.name
    try:
        content = file.read()
    except _DAMAGES as error:
        raise Unreadable(f"{_CUT}: {error}") from error
    if len(content) != info.size:
        raise Unreadable(f"{_CUT}: {len(content):,} bytes where its header says {info.size:,}")
    return content


def _after(file: IO[bytes]) -> str:
    """Return what is wrong with what follows the end of a tar file, which is zeros."""
    while block := file.read(2**20):
        if block.strip(b"\0"):
            return "more data after its end: is it several tar files, one after the other?"
    return ""
