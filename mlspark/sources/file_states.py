"""What tells whether files have changed: sizes and times of change, and the content where a time says nothing. Driver."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mlspark import storage
from mlspark.sources.opened_files import failures
from mlspark.sources.source import Part, Source

logger = logging.getLogger(__name__)

_SHA256 = "sha256 "
_NO_TIME_BEFORE = 86_400_000_000
"""Microseconds: stores that know no time of change say 0, and programs that pack files alike everywhere set 0 or 1."""
_SECOND = 1_000_000
_PATIENCE = 2.0
_READ_AT_A_TIME, _BLOCK = 16, 2**22


def state(size: int, micros: int) -> str:
    """Return the state of a file by its size and its time of change in microseconds."""
    return f"{size} bytes, {micros}"


def settled(parts: Callable[[], Sequence[Part]], path: Callable[[str], str] = str) -> tuple[Part, ...]:
    """Return listed files with states that change when their content does.

    A file without a time of change is read for its SHA-256. Where times are whole seconds, a file of this second could be
    replaced in it unseen: it is listed once more when the second is over.

    Args:
        parts: lists the files, with states of `state`.
        path: name of a part -> URI or path to read it by.

    Raises:
        SourceError: a file without a time cannot be read.
    """
    listed = parts()
    if (seconds := _until_over(map(_micros, listed))) > 0:
        time.sleep(seconds)
        listed = parts()
    # What has more before its size cannot be opened: its name is no text.
    without = [part for part in listed if part.state[0].isdigit() and _micros(part) < _NO_TIME_BEFORE]
    if not without:
        return tuple(listed)
    logger.warning(
        "%s: has no time of change; %d such files are read for their checksums", without[0].name, len(without)
    )
    with ThreadPoolExecutor(_READ_AT_A_TIME) as pool:
        checksums = dict(zip(without, pool.map(lambda part: _checksum(path(part.name)), without), strict=True))
    return tuple(
        replace(part, state=f"{part.state}, {_SHA256}{checksums[part]}") if part in checksums else part
        for part in listed
    )


def rests_on(parts: Iterable[Part]) -> str:
    """Return what the states of files rest on, in words for reports."""
    num_read = sum(_SHA256 in part.state for part in parts)
    known = Source.rests_on
    return f"{known}, and checksums of {num_read:,} without a time" if num_read else known


def _micros(part: Part) -> int:
    return int(part.state.rpartition(" ")[2])


def _until_over(times: Iterable[int]) -> float:
    """Return the seconds until no time of whole seconds is that of the current second; clocks may differ a little."""
    now = time.time()
    fresh = [micros / _SECOND - now for micros in times if micros % _SECOND == 0 and micros / _SECOND > now - _PATIENCE]
    return min(_PATIENCE, max(fresh) + _PATIENCE) if fresh else 0.0


def _checksum(uri: str) -> str:
    """Return the SHA-256 of a file's content."""
    filesys, path = storage.filesystem(uri)
    digest = hashlib.sha256()
    with failures(uri), filesys.open_input_stream(path, compression=None) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
