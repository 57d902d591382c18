"""What tells a plain Parquet file from the same one after a change: its size, its time of change and its footer."""

import hashlib
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.errors import DatasetError, one_line

_MAGIC = b"PAR1"
_TAIL_BYTES = 65_536  # of a file, read at once: most footers are shorter
_DIGITS = 16


def mark(info: fs.FileInfo, footer: bytes) -> str:
    """Return a text for time of change and footer of a file; `refuse_changed` compares it."""
    return f"{info.mtime_ns or 0} {hashlib.sha256(footer).hexdigest()[:_DIGITS]}"


def read_footer(uri: str) -> tuple[pq.FileMetaData, bytes]:
    """Return the footer of a Parquet file, parsed and as it is stored.

    Raises:
        DatasetError: it is no Parquet file, or cannot be read; names it.
    """
    filesystem, path = storage.filesystem(uri)
    try:
        with filesystem.open_input_file(path) as file:
            size = file.size()
            tail = file.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
            if len(tail) < 2 * len(_MAGIC) + 4 or tail[-4:] != _MAGIC:
                raise DatasetError(
                    f"{uri}: {size} bytes that do not end as a Parquet file does; remove it or write it again, or leave it "
                    f"out with a glob such as FOLDER/*.parquet"
                )
            length = int.from_bytes(tail[-8:-4], "little") + 8
            if len(tail) < length <= size:
                tail = file.read_at(length, size - length)
        footer = tail[-length:]
        return pq.read_metadata(pa.BufferReader(_MAGIC + footer)), footer
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{uri}: the footer of this Parquet file cannot be read: {one_line(str(error))}") from error


def refuse_changed(uri: str, size_bytes: int, marked: str, *, footer_too: bool) -> None:
    """Raise DatasetError where the file is not the one any more that had that size and mark.

    Args:
        uri: of the file.
        size_bytes: its size then.
        marked: its `mark` then.
        footer_too: read the footer and compare it: a file may change within the time that its store can tell apart.
    """
    filesystem, path = storage.filesystem(uri)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise _changed(uri, "is not there any more")
    if info.size != size_bytes:
        raise _changed(uri, f"had {size_bytes} bytes and has {info.size}")
    now: dict[str, Any] = {"time of change": str(info.mtime_ns or 0)}
    if footer_too:
        now["footer"] = mark(info, read_footer(uri)[1]).split()[1]
    then = dict(zip(("time of change", "footer"), marked.split(), strict=True))
    for what, value in now.items():
        if value != then[what]:
            raise _changed(uri, f"has another {what}")


def _changed(uri: str, how: str) -> DatasetError:
    return DatasetError(f"{uri}: this file {how} since the stream was opened; open it anew, which begins at the start")
