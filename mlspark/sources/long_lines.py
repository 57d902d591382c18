"""Files with lines that no machine should hold whole: found by looking for line ends, read in pieces.

Hadoop's reader of lines holds each line in memory, or with a limit leaves the longer ones out in silence and cuts those that
lie across two tasks. So files with such lines are read here, a file by one task, and each of these lines comes cut.
"""

import bz2
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage
from mlspark.contracts.own_columns import PREFIX, SOURCE_FILE
from mlspark.errors import SourceError, one_line
from mlspark.sources import files
from mlspark.sources.source import REMEDY, Part, header_difference

LINE = f"{PREFIX}line"
"""Column of a whole line, or of the start of one that is too long."""
ALWAYS_WHOLE = 2**20
"""Bytes of a line that every task can hold: shorter ones are not looked for."""
_SEGMENT = 2**26
_SEGMENTS_AT_A_TIME = 16
_LOOK = 2**12
_LOOK_COMPRESSED = 2**16
_PIECE = 2**20
_BATCH = 2**22
_MARK = b"\xef\xbb\xbf"
_LINE_COST = 64
_PACKED = re.compile(r"\.(gz|bz2|deflate|zst|lz4|snappy|passthrough)$")
_OPENERS: dict[str, Callable[[Any], Any]] = {".gz": lambda file: gzip.GzipFile(fileobj=file), ".bz2": bz2.BZ2File}


@lru_cache(maxsize=8)
def files_with(spark: SparkSession, parts: tuple[Part, ...], max_line_bytes: int) -> frozenset[str]:
    """Return the files that may have a line of more than `max_line_bytes`, or `ALWAYS_WHOLE` where that is more. Driver.

    Every line of more than twice as much is found; the reading tells the shorter ones, which any task holds.
    Looks at the end of each stretch of so many bytes for a line end, so of a plain file it reads about one part in 250. A
    compressed file is unpacked once, and counts as one with long lines where a line of 64 KiB or more hides the others.
    What cannot be read is left to the reading.

    Args:
        spark: the session of the job.
        parts: files of text.
        max_line_bytes: bytes that a line may have.
    """
    longest = max(max_line_bytes, ALWAYS_WHOLE)
    conf = files.hadoop(spark)
    codecs = files.jvm(spark).org.apache.hadoop.io.compress.CompressionCodecFactory(conf)

    def segments(part: Part) -> Iterator[tuple[str, int, int, Any]]:
        codec = codecs.getCodec(files.jvm(spark).org.apache.hadoop.fs.Path(part.name))
        if codec is not None:
            yield part.name, 0, 0, codec
        elif part.size_bytes > longest:
            for start in range(0, part.size_bytes, _SEGMENT):
                yield part.name, start, min(start + _SEGMENT, part.size_bytes), None

    def has_long_line(segment: tuple[str, int, int, Any]) -> bool:
        name, start, end, codec = segment
        path = files.jvm(spark).org.apache.hadoop.fs.Path(name)
        try:
            stream = path.getFileSystem(conf).open(path)
            try:
                if codec is None:
                    return _has_long_line(stream, start, end, longest)
                return _has_long_line_inside(codec.createInputStream(stream), longest)
            finally:
                stream.close()
        except Py4JJavaError:
            return False

    found = [segment for part in parts for segment in segments(part)]
    with ThreadPoolExecutor(_SEGMENTS_AT_A_TIME) as pool:
        has_one = pool.map(has_long_line, found)
        return frozenset(segment[0] for segment, has_it in zip(found, has_one, strict=True) if has_it)


def _has_long_line(stream: Any, start: int, end: int, longest: int) -> bool:
    """Return whether a stretch of more than `longest` bytes from `start` to `end` has no line end."""
    position = start
    while position + longest < end:
        stop, look = position + longest + 1, _LOOK
        while True:
            begin = max(position, stop - look)
            stream.seek(begin)
            at = _last_line_end(bytes(stream.readNBytes(stop - begin)))
            if at >= 0:
                position = begin + at + 1
                break
            if begin == position:
                return True
            stop, look = begin, look * 4
    return False


def _has_long_line_inside(stream: Any, longest: int) -> bool:
    """Return whether there may be such a stretch in a stream that only goes forward."""
    while True:
        left = longest - 2 * _LOOK_COMPRESSED
        while left > 0:
            skipped = stream.skip(left)
            if skipped <= 0:
                break
            left -= skipped
        tail = bytes(stream.readNBytes(_LOOK_COMPRESSED))
        if len(tail) < _LOOK_COMPRESSED:
            return False
        if _last_line_end(tail) < 0:
            return True


def _last_line_end(piece: bytes) -> int:
    return max(piece.rfind(b"\n"), piece.rfind(b"\r"))


def read(
    spark: SparkSession, names: Sequence[str], max_line_bytes: int, *, header: str | None = None, comment: str = ""
) -> DataFrame:
    """Return `LINE`, `SOURCE_FILE` for every line of files of text, lazily; of a long one little more than `max_line_bytes`.

    Executors read the files themselves, as they read tables: see `storage.filesystem`.

    Args:
        spark: the session of the job.
        names: the files.
        max_line_bytes: bytes that a line may have.
        header: line that each file starts with, which is no row; None: there is none.
        comment: what lines before the header start with that are not it.

    Raises:
        SourceError: at once: a file is packed in a way that cannot be read in pieces; when it runs: a file cannot be read,
            or has another header.
    """
    for name in names:
        _opener(name)

    def lines(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for name, shown in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                read = _lines_of(name, max_line_bytes)
                for some in _batched(read if header is None else _below(read, name, header, comment)):
                    yield pa.record_batch({LINE: pa.array(some, pa.binary()), SOURCE_FILE: pa.repeat(shown, len(some))})

    path = files.jvm(spark).org.apache.hadoop.fs.Path
    both = [(name, str(path(name).toUri().toString())) for name in names]  # the second as Spark calls a row's file
    named = spark.createDataFrame(both, "file string, shown string").repartition(len(names))
    read = named.mapInArrow(lines, f"{LINE} binary, {SOURCE_FILE} string")
    return read.select(F.col(LINE).cast("string").alias(LINE), SOURCE_FILE)


def _lines_of(name: str, max_line_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a file, those that are too long cut."""
    opener = _opener(name)
    try:
        filesystem, path = storage.filesystem(re.sub("^file:/+", "/", name))
        with filesystem.open_input_stream(path, compression=None) as file:
            for number, line in enumerate(split(opener(file) if opener else file, max_line_bytes)):
                yield line.removeprefix(_MARK) if number == 0 else line
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name}: cannot be read: {one_line(str(error))}; {REMEDY}") from error


def _opener(name: str) -> Callable[[Any], Any] | None:
    """Return what unpacks a file of this name; None for one that is as it is. Raises SourceError."""
    suffix = _PACKED.search(name)
    if suffix is None:
        return None
    if suffix[0] not in _OPENERS:
        raise SourceError(
            f"{name}: may have lines of more than max_line_bytes, and no {suffix[0]} file is read in pieces; pack it as .gz"
        )
    return _OPENERS[suffix[0]]


def split(stream: Any, max_line_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a stream without their ends: line feed, carriage return or both.

    Of a line of more than `max_line_bytes` comes so much, and one to four bytes more, up to the end of a character.
    """
    most = max_line_bytes + 5  # one more than is given, which says whether a character ends there
    rest, ended_in_return = b"", False
    while piece := bytes(stream.read(_PIECE)):
        if ended_in_return:
            piece = piece.removeprefix(b"\n")
        if not piece:
            ended_in_return = False
            continue
        ended_in_return, is_ended = piece.endswith(b"\r"), piece.endswith((b"\n", b"\r"))
        lines = piece.splitlines()
        lines[0] = rest + lines[0]
        rest = b"" if is_ended else lines.pop()[:most]
        for line in lines:
            yield _cut(line, max_line_bytes)
    if rest:
        yield _cut(rest, max_line_bytes)


def _cut(line: bytes, max_line_bytes: int) -> bytes:
    if len(line) <= max_line_bytes:
        return line
    end = min(len(line), max_line_bytes + 4)
    while end > max_line_bytes + 1 and end < len(line) and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end]


def _below(lines: Iterator[bytes], name: str, header: str, comment: str) -> Iterator[bytes]:
    """Yield the lines below a header, which is the first that is no comment, and not blank."""
    for line in lines:
        text = line.decode("utf-8", "replace")
        if not text.strip() or (comment and text.startswith(comment)):
            continue
        if text.lower() != header.lower():
            raise SourceError(f"{name}: {header_difference(text, header)}; {REMEDY}")
        break
    yield from lines


def _batched(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Yield lines in lists of few bytes."""
    some, size = [], 0
    for line in lines:
        some.append(line)
        size += len(line) + _LINE_COST
        if size > _BATCH:
            yield some
            some, size = [], 0
    if some:
        yield some
