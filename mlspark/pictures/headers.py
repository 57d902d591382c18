"""What a picture's file says of itself, read without any library: format; headers of JPEG, PNG, WebP. Runs anywhere."""

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from mlspark.errors import PictureError

Data = bytes | bytearray | memoryview
"""The content of a picture file."""

Format = Literal["jpeg", "png", "gif", "webp", "bmp", "tiff", "avif"]
FORMATS: tuple[Format, ...] = ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")
"""Formats that are read."""

_STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
    b"BM": "bmp",
}
_STARTS_OF_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip",
    b"8BPS": "a Photoshop file",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x01\x00": "an icon",
}
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
"""A marker of a JPEG that has a length behind it."""
_MOST_PIECES = 2**15
"""Segments of a JPEG, chunks of a PNG, pages of a TIFF above which a file is refused: millions of them cost minutes."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_PNG_MODES = {
    (1, 0): "1", (2, 0): "L", (4, 0): "L", (8, 0): "L", (16, 0): "L;16", (8, 2): "RGB", (16, 2): "RGB;16", (1, 3): "P",
    (2, 3): "P", (4, 3): "P", (8, 3): "P", (8, 4): "LA", (16, 4): "LA;16", (8, 6): "RGBA", (16, 6): "RGBA;16",
}  # fmt: skip
"""(bits of a channel, type of colours) -> mode, of those that there are."""
_EXIF = b"Exif\x00\x00"
_ORIENTATION = 0x0112


def format_of(data: Data) -> str:
    """Return which of `FORMATS` a file is, by its first bytes; "" where it is none of them."""
    for start, name in _STARTS.items():
        if data[: len(start)] == start:
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        major = bytes(data[8:12])
        if major in (b"avif", b"avis") or (major in (b"mif1", b"msf1") and b"avif" in bytes(data[12:64])):
            return "avif"
    return ""


def other_format(data: Data) -> str:
    """Return in words what a file may be that is none of `FORMATS`."""
    for start, name in _STARTS_OF_OTHERS.items():
        if data[: len(start)] == start:
            return name
    if data[4:8] == b"ftyp":
        is_heic = bytes(data[8:12]) in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
        return "HEIC" if is_heic else "a video"
    head = bytes(data[:512])
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not merely a character that is cut
            return "unknown"
        text = head[: error.start].decode()
    if "<svg" in text:
        return "SVG"
    return "text" if all(sign.isprintable() or sign.isspace() or sign == "\ufeff" for sign in text) else "unknown"


@dataclass(frozen=True)
class JpegHeader:
    """What stands before the pixels of a JPEG."""

    width: int
    height: int
    components: int
    bits: int
    """Bits of a component: 8, or 12."""
    is_progressive: bool
    orientation: int
    """1 to 8, of EXIF; 1 where there is none."""


_last_jpeg: list[tuple[bytes, JpegHeader]] = []
"""What stood before the pixels of the last JPEG, and what it says. One program writes pictures of one size with the same
bytes there, and a quarter of the time of a small one would go into reading them again."""
_MOST_KEPT = 4096


def jpeg_header(data: Data) -> JpegHeader:
    """Return the header of a JPEG; a few microseconds.

    Raises:
        PictureError: it is not whole.
    """
    for start, header in _last_jpeg:
        if data[: len(start)] == start:
            return header
    header, length = _jpeg_header(data)
    if 0 < length <= _MOST_KEPT:
        _last_jpeg[:] = [(bytes(data[:length]), header)]
    return header


def _jpeg_header(data: Data) -> tuple[JpegHeader, int]:
    """Return the header, and how many bytes decide it, whatever follows: those up to the first pixels; 0: there are none."""
    position, end = 2, len(data)
    frame: tuple[int, int, int, int, bool] | None = None
    orientation = num_segments = 0
    while (found := _MARKER.search(data, position, end)) is not None:  # decoders skip what stands between two segments
        position, num_segments = found.start(), num_segments + 1
        marker = data[position + 1]
        if marker in (0xDA, 0xD9) or position + 4 > end:
            break
        if num_segments > _MOST_PIECES:
            raise PictureError(f"jpeg: more than {_MOST_PIECES:,} segments before its pixels")
        length = data[position + 2] << 8 | data[position + 3]
        body = position + 4
        if length < 2 or position + 2 + length > end:
            raise PictureError("jpeg: the file ends within its header")
        if marker in _FRAMES and length >= 8:
            height, width = data[body + 1] << 8 | data[body + 2], data[body + 3] << 8 | data[body + 4]
            frame = width, height, data[body + 5], data[body], marker in _PROGRESSIVE
        elif marker == 0xE1 and not orientation and data[body : body + 6] == _EXIF:
            orientation = exif_orientation(bytes(data[body + 6 : position + 2 + length]))
        position += 2 + length
    if frame is None:
        raise PictureError(
            "jpeg: the file ends within its header" if found is None or position + 4 > end else "jpeg: has no size"
        )
    width, height, components, bits, is_progressive = frame
    if not width or not height:
        raise PictureError(f"jpeg: its size is {width} x {height} pixels")
    return JpegHeader(width, height, components, bits, is_progressive, orientation or 1), (
        position + 2 if marker in (0xDA, 0xD9) else 0
    )


@dataclass(frozen=True)
class PngHeader:
    """What the chunks of a PNG say."""

    width: int
    height: int
    mode: str
    bits: int
    num_frames: int
    orientation: int
    has_transparency: bool


def png_header(data: Data, *, is_whole: bool = False) -> PngHeader:
    """Return the header of a PNG.

    Args:
        data: the file.
        is_whole: refuse a file without its end, or with pixels that are not what their checksum says; Pillow takes both.

    Raises:
        PictureError: it is damaged.
    """
    view, position, end = memoryview(data), 8, len(data)
    fields: tuple[int, int, int, int] | None = None
    chunks: set[bytes] = set()
    num_frames, orientation, num_chunks = 1, 1, 0
    while position + 12 <= end and b"IEND" not in chunks:
        (length,), name = struct.unpack_from(">I", view, position), bytes(view[position + 4 : position + 8])
        after = position + 12 + length
        if after > end:
            break
        body, num_chunks = view[position + 8 : after - 4], num_chunks + 1
        if num_chunks > _MOST_PIECES:
            raise PictureError(f"png: more than {_MOST_PIECES:,} chunks")
        if (
            is_whole
            and name[:1].isupper()
            and zlib.crc32(view[position + 4 : after - 4]) != _big(view[after - 4 : after])
        ):
            raise PictureError("png: cannot be decoded: its pixels are not what their checksum says")
        if name == b"IHDR" and fields is not None:
            raise PictureError("png: has two headers, which may say two sizes")
        if name == b"IHDR" and length == 13:
            fields = _big(body[:4]), _big(body[4:8]), body[8], body[9]
        elif name == b"acTL" and length == 8 and b"IDAT" not in chunks:
            num_frames = max(_big(body[:4]), 1)
        elif name == b"IDAT" and b"acTL" in chunks and not {b"fcTL", b"IDAT"} & chunks:
            num_frames += 1  # a picture for those who know no animations, and none of the animation's
        elif name == b"eXIf":
            orientation = exif_orientation(bytes(body).removeprefix(_EXIF))
        chunks.add(name)
        position = after
    if fields is None:
        raise PictureError("png: the file ends within its header, or is damaged there")
    if is_whole and not {b"IDAT", b"IEND"} <= chunks:
        raise PictureError("png: cannot be decoded: the file ends before the picture does")
    width, height, bits, colours = fields
    if not width or not height:
        raise PictureError(f"png: its size is {width} x {height} pixels")
    mode = _PNG_MODES.get((bits, colours))
    if mode is None:
        raise PictureError(f"png: there is no type of colours {colours} of {bits} bits")
    has_transparency = b"tRNS" in chunks or colours in (4, 6)
    return PngHeader(width, height, mode, bits, num_frames, orientation, has_transparency)


def _big(view: memoryview) -> int:
    return int.from_bytes(view, "big")


@dataclass(frozen=True)
class WebpHeader:
    """What the chunks of a WebP file say."""

    width: int
    height: int
    has_alpha: bool
    num_frames: int
    orientation: int


def webp_header(data: Data) -> WebpHeader:
    """Return the header of a WebP file.

    Raises:
        PictureError: it is not whole.
    """
    size: tuple[int, int] | None = None
    has_alpha, num_frames, orientation = False, 0, 1
    position, end = 12, len(data)
    while position + 8 <= end:
        name, length = bytes(data[position : position + 4]), int.from_bytes(data[position + 4 : position + 8], "little")
        body = bytes(data[position + 8 : position + 18])
        if name == b"VP8X" and len(body) == 10:
            size = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
            has_alpha = bool(body[0] & 0x10)
        elif name == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
            size = size or (int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
        elif name == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
            bits = int.from_bytes(body[1:5], "little")
            has_alpha = has_alpha or bool(bits >> 28 & 1)
            size = size or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif name == b"EXIF":
            exif = bytes(data[position + 8 : position + 8 + length])
            orientation = exif_orientation(exif.removeprefix(_EXIF))
        num_frames += name in (b"ANMF", b"VP8 ", b"VP8L")
        position += 8 + length + length % 2
    if size is None:
        raise PictureError("webp: the file ends within its header, or is damaged there")
    if not all(size):
        raise PictureError(f"webp: its size is {size[0]} x {size[1]} pixels")
    return WebpHeader(*size, has_alpha, max(num_frames, 1), orientation)


def tiff_pages(data: Data) -> int:
    """Return how many pages a TIFF has: its directories, each of which says where the next one is.

    Pillow compares each with all before it, which takes hours where they are many.

    Raises:
        PictureError: there are more than anyone reads.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in (data[2], data[3])
    places, count, link = (f"{order}Q", f"{order}Q", 20) if is_big else (f"{order}I", f"{order}H", 12)
    known: set[int] = set()
    try:
        (place,) = struct.unpack_from(places, data, 8 if is_big else 4)
        while place and place not in known:
            if len(known) == _MOST_PIECES:
                raise PictureError(f"more than {_MOST_PIECES:,} pages")
            (num_entries,) = struct.unpack_from(count, data, place)
            known.add(place)
            (place,) = struct.unpack_from(places, data, place + struct.calcsize(count) + link * num_entries)
    except struct.error:
        pass  # the directory after the last whole one is cut off
    return max(1, len(known))


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, in the first directory of EXIF data; 1 where it has none that can be read."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (num_entries,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(start + 2, min(start + 2 + 12 * num_entries, len(exif) - 11), 12):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if tag == _ORIENTATION:
            return value if kind == 3 and count == 1 and 1 <= value <= 8 else 1
    return 1
