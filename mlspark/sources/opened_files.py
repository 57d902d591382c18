"""Files of any scheme as Python reads them: whole, in ranges, part of one as a file of its own. Executors and driver."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from mlspark import storage
from mlspark.errors import SourceError, one_line

LOCAL_BUFFER, REMOTE_BUFFER = 2**16, 2**22
"""Bytes that one read fetches: a remote store takes as long for 4 MiB as for the way there and back of two requests."""
_FAR = 2**20
"""Bytes that are skipped rather than fetched: a remote store gives that many in the time of a request."""


@contextmanager
def opened(uri: str, *, in_memory: bool = False) -> Iterator[IO[bytes]]:
    """Yield the file for random access, with a buffer.

    Args:
        uri: of the file.
        in_memory: fetch a remote file at once: for one that is small and read more than once.

    Raises:
        SourceError: it cannot be opened or read; names it.
    """
    filesys, path = storage.filesystem(uri)
    with failures(uri), filesys.open_input_file(path) as file:
        if storage.is_local(uri):
            yield cast(IO[bytes], io.BufferedReader(file, LOCAL_BUFFER))
        elif in_memory:
            yield io.BytesIO(file.read())
        else:
            yield cast(IO[bytes], io.BufferedReader(Sparing(file), REMOTE_BUFFER))


class _Placed(io.RawIOBase):
    """A file to be read, which knows where it is."""

    _place: int

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place


class Sparing(_Placed):
    """A remote file that fetches little after a far jump, as from one header of a tar to the next, then ever more."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = self._end = 0
        self._fetch = LOCAL_BUFFER // 2

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = self._file.seek(offset, whence) if whence == io.SEEK_END else offset + whence * self._place
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        is_far = not self._end <= self._place <= self._end + _FAR
        self._fetch = LOCAL_BUFFER if is_far else min(2 * self._fetch, REMOTE_BUFFER)
        self._file.seek(self._place)
        found = self._file.read(min(self._fetch, len(buffer)))
        buffer[: len(found)] = found
        self._place += len(found)
        self._end = self._place
        return len(found)


@contextmanager
def failures(uri: str) -> Iterator[None]:
    """Turn a store's failure to give a file into SourceError."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{uri}: cannot be read ({one_line(str(error)) or type(error).__name__}); correct or remove it, or try again "
            f"where the store was down; nothing was written"
        ) from error


def content(uri: str, size: int) -> bytes:
    """Return a whole file.

    Args:
        uri: of the file.
        size: its bytes when it was listed.

    Raises:
        SourceError: it cannot be read, or has another size now.
    """
    filesys, path = storage.filesystem(uri)
    with failures(uri), filesys.open_input_stream(path, compression=None) as file:
        found = bytes(file.read(size + 1))
    if len(found) != size:
        raise SourceError(f"{uri}: changed while it was read: it had {size:,} bytes; nothing was written. Run again")
    return found


class Excerpt(_Placed):
    """Bytes of a file from `start` to `end`, then `tail`, as a file of their own."""

    def __init__(self, file: IO[bytes], start: int, end: int, tail: bytes = b"") -> None:
        self._file, self._start, self._length, self._tail = file, start, end - start, tail
        self._place = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length + len(self._tail)}[whence]
        if base + offset < 0:
            raise OSError(f"cannot go to byte {base + offset}")
        self._place = base + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length + len(self._tail) - self._place)
        size = left if size is None or size < 0 else min(size, left)
        found = b""
        if self._place < self._length:
            self._file.seek(self._start + self._place)
            found = self._file.read(min(size, self._length - self._place))
            if len(found) < min(size, self._length - self._place):  # the file is shorter than it was
                self._place += len(found)
                return found
        if len(found) < size:
            begin = self._place + len(found) - self._length
            found += self._tail[begin : begin + size - len(found)]
        self._place += len(found)
        return found

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
