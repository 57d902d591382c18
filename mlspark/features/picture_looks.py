"""What is found when a worker looks at the pictures of a column for their profile. Runs on executors."""

import hashlib
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mlspark.errors import PictureError
from mlspark.pictures import decoder, figures
from mlspark.pictures.figures import Thumbnail

NUM_SAMPLES = 8
"""Pictures of a class that are shown."""
MAX_PIXELS = 50_000_000
"""Pixels of a picture above which it is not decoded: what is known of it stands in its header."""
PICTURE, COUNT, SAMPLE, WANTED = "picture", "count", "sample", "wanted"
"""What a found row is: a picture, a number of pixels or pictures, a thumbnail of a class, one that was asked for."""
UNREADABLE = "unreadable"
"""Name of the count of pictures that were to be decoded and could not."""

MEASURES = {
    "format": "string",
    "mode": "string",
    "bits": "int",
    "orientation": "string",
    "width": "int",
    "height": "int",
    "size": "string",
    "bytes": "int",
    "brightness": "double",
}
"""What is known of each picture -> type, as a contract's column would have it. Width, height and size are those as seen."""

SCHEMA = ", ".join(
    [
        "what string, is_event boolean",
        *(f"{name} {type_}" for name, type_ in MEASURES.items()),
        "name string, value int, number bigint",
        "sha256 string, media_type string, data binary, full_width int, full_height int",
    ]
)
"""Found rows, on Spark; each has the columns of what it is, and nulls."""
_ARROW = {"string": pa.string(), "boolean": pa.bool_(), "int": pa.int32(), "bigint": pa.int64(), "double": pa.float64()}
_FIELDS = pa.schema(
    [(name, _ARROW.get(type_, pa.binary())) for name, type_ in (field.split() for field in SCHEMA.split(","))]
)
_PREFIX = 8  # hexadecimal digits of a SHA-256 by which pictures are chosen to be decoded
_PREFIXES = 16.0**_PREFIX


@dataclass(frozen=True)
class Asked:
    """What to look for."""

    classes: frozenset[str]
    """Labels of which samples are kept."""
    wanted: frozenset[str] = frozenset()
    """SHA-256 of pictures of which thumbnails are made."""
    share: float = 1.0
    """Share of the pictures that are decoded, chosen by content."""

    def is_decoded(self, digest: str) -> bool:
        return int(digest[:_PREFIX], 16) < self.share * _PREFIXES


def looking(asked: Asked) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what turns rows (picture, label, is_event) into those of `SCHEMA`."""

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = _Found(asked)
        for batch in batches:
            rows = zip(*(batch.column(place) for place in range(3)), strict=True)
            yield _batch([found.picture(*(value.as_py() for value in row)) for row in rows])
        yield _batch([*found.counts(), *found.thumbnails()])

    return look


def thumbnails_alone(asked: Asked) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what makes the wanted thumbnails of rows (picture), of those that can be decoded, and nothing else."""

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = _Found(asked)
        for batch in batches:
            for value in batch.column(0):
                data = value.as_py()
                found.thumbnail_of(data, hashlib.sha256(data).hexdigest())
        yield _batch(list(found.thumbnails()))

    return look


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, _FIELDS)


@dataclass
class _Found:
    """What a task has found so far; its memory is that of the thumbnails."""

    asked: Asked
    pixels: Any = field(default_factory=lambda: np.zeros((len(figures.CHANNELS), figures.NUM_VALUES), np.int64))
    num_unreadable: int = 0
    wanted: dict[str, Thumbnail] = field(default_factory=dict)
    samples: dict[str, list[tuple[int, str, Thumbnail]]] = field(default_factory=dict)
    """Label -> heap of the pictures of the least SHA-256, the greatest of them on top."""

    def picture(self, data: bytes | None, label: str | None, is_event: bool | None) -> dict[str, Any]:
        """Return the row of a picture, and take it into account."""
        row: dict[str, Any] = {"what": PICTURE, "is_event": is_event}
        if data is None:
            return row
        row["bytes"] = len(data)
        try:
            header = decoder.probe(data)
        except PictureError:
            self.num_unreadable += 1
            return row
        width, height = figures.seen_size(header)
        row |= {"format": header.format, "mode": header.mode, "bits": header.bits}
        row |= {"orientation": str(header.orientation), "width": width, "height": height, "size": f"{width} x {height}"}
        digest = hashlib.sha256(data).hexdigest()
        if header.num_pixels <= MAX_PIXELS and self.asked.is_decoded(digest):
            try:
                of_pixels = figures.values(data, header)
            except PictureError:
                self.num_unreadable += 1
                return row
            self.pixels += of_pixels
            row["brightness"] = figures.brightness(of_pixels)
        self.thumbnail_of(data, digest)
        if label in self.asked.classes:
            self._sample(data, digest, label)
        return row

    def thumbnail_of(self, data: bytes, digest: str) -> None:
        """Keep the thumbnail of a picture that is wanted."""
        if digest in self.asked.wanted and digest not in self.wanted:
            made = _thumbnail(data)
            if made is not None:
                self.wanted[digest] = made

    def _sample(self, data: bytes, digest: str, label: str) -> None:
        heap = self.samples.setdefault(label, [])
        # heapq keeps the least on top.
        place = -int(digest, 16)
        if (len(heap) == NUM_SAMPLES and place <= heap[0][0]) or any(digest == kept for _, kept, _ in heap):
            return
        made = _thumbnail(data)
        if made is not None:
            heapq.heappush(heap, (place, digest, made))
            if len(heap) > NUM_SAMPLES:
                heapq.heappop(heap)

    def counts(self) -> Iterator[dict[str, Any]]:
        for name, row in zip(figures.CHANNELS, self.pixels, strict=True):
            for value in np.flatnonzero(row).tolist():
                yield {"what": COUNT, "name": name, "value": value, "number": int(row[value])}
        yield {"what": COUNT, "name": UNREADABLE, "value": 0, "number": self.num_unreadable}

    def thumbnails(self) -> Iterator[dict[str, Any]]:
        for digest, made in self.wanted.items():
            yield _thumbnail_row(WANTED, "", digest, made)
        for label, heap in self.samples.items():
            for _, digest, made in heap:
                yield _thumbnail_row(SAMPLE, label, digest, made)


def _thumbnail(data: bytes) -> Thumbnail | None:
    """Return the thumbnail of a picture; None where there is none to be had in bounded memory."""
    try:
        header = decoder.probe(data)
        return figures.thumbnail(data, header) if header.num_pixels <= MAX_PIXELS else None
    except PictureError:
        return None


def _thumbnail_row(what: str, label: str, digest: str, made: Thumbnail) -> dict[str, Any]:
    return {
        "what": what,
        "name": label,
        "sha256": digest,
        "media_type": made.media_type,
        "data": made.data,
        "full_width": made.width,
        "full_height": made.height,
    }
