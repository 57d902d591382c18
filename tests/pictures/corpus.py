"""Damaged and odd pictures, each made here, with what must become of it."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (48, 32)
EXIF, ORIENTATION = b"Exif\0\0", 0x0112
ARITHMETIC = Path(__file__).parent / "data" / "arithmetic.jpg"
"""`jpeg()` as jpegtran -copy none -arithmetic of libjpeg-turbo 2.1.5 writes it, 480 bytes: Pillow has no setting for it."""


def scene(width: int = SIZE[0], height: int = SIZE[1], seed: int = 0) -> Image.Image:
    """A picture with slopes, edges and some noise, unlike itself however it is turned."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    red = 255 * columns / max(width - 1, 1)
    green = 255 * rows / max(height - 1, 1)
    blue = 200.0 * ((columns // 16 + rows // 16 + seed) % 2)
    pixels = np.stack([red, green, blue], axis=2) + random.normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a picture's file."""
    into = io.BytesIO()
    picture.save(into, kind, **options)
    return into.getvalue()


def jpeg(**options: Any) -> bytes:
    return file_of(scene(), "JPEG", quality=90, **options)


def half(kind: str, **options: Any) -> bytes:
    data = file_of(scene(200, 150), kind, **options)
    return data[: len(data) // 2]


def oriented(orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return file_of(scene(), kind, exif=exif, **options)


def animation(kind: str, number: int = 3, **options: Any) -> bytes:
    frames = [scene(seed=seed) for seed in range(number)]
    return file_of(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, *, bits: int = 8, colours: int = 0, row: bytes | None = None, more: bytes = b""
) -> bytes:
    """A PNG whose rows are all alike (zeros unless given), written by hand: any size, in little memory."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    line = b"\0" + (row if row is not None else bytes((width * channels * bits + 7) // 8))
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(line * lines) for lines in [256] * (height // 256) + [height % 256])
    packed += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    return png(4, 4, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))))


def interlaced() -> bytes:
    """`scene()` as a PNG in seven passes, each over a grid of its own (Adam7), which Pillow reads and does not write."""
    pixels = np.asarray(scene())
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    grids = [pixels[top::down, left::right] for top, left, down, right in passes]
    lines = b"".join(b"\0" + line.tobytes() for grid in grids for line in grid)
    header = struct.pack(">IIBBBBB", *SIZE, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def before_pixels(data: bytes, content: bytes) -> bytes:
    """A PNG with more in front of its pixels."""
    place = data.index(b"IDAT") - 4
    return data[:place] + content + data[place:]


def two_headers() -> bytes:
    """A PNG of 5,000 x 5,000 that calls itself 4 x 4 behind its pixels."""
    large, place = png(5000, 5000, bits=1), -12
    return large[:place] + png(4, 4)[8:33] + large[place:]


def tiff(pages: int, *, is_ring: bool = False) -> bytes:
    """A TIFF of one pixel whose pages are all the same one; the last leads to the first, or nowhere."""
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1))
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags
    )
    size, first = len(directory) + 4, 10
    after = [first + size * number for number in range(1, pages)] + [first if is_ring else 0]
    return b"II*\0" + struct.pack("<I2x", first) + b"".join(directory + struct.pack("<I", place) for place in after)


def huge_tile(side: int) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile that is larger, all of it zeros."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    packed += bytes(len(packed) % 2)
    short = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(packed)}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in short.items())
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(short)) + tags + bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def patched(data: bytes, place: int, content: bytes) -> bytes:
    assert 0 <= place <= len(data) - len(content)
    return data[:place] + content + data[place + len(content) :]


def frame_header(data: bytes) -> int:
    """Where the frame header of a JPEG begins."""
    return next(place for marker in (b"\xff\xc0", b"\xff\xc2") if (place := data.find(marker)) >= 0)


def without_adobe_marker(data: bytes) -> bytes:
    place = data.find(b"\xff\xee")
    return data[:place] + data[place + 2 + struct.unpack_from(">H", data, place + 2)[0] :]


def many_passes(number: int) -> bytes:
    data = jpeg(progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * number + data[-2:]


def with_huge_exif() -> bytes:
    data = jpeg()
    return (
        data[:2]
        + segment(0xE1, EXIF + b"II*\0\x08\0\0\0\0\0" + bytes(65_000))
        + segment(0xE1, bytes(65_000))
        + data[2:]
    )


def see_through(mode: str = "RGBA") -> Image.Image:
    picture = scene().convert(mode.removesuffix("A"))
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    return picture


@dataclass(frozen=True)
class Odd:
    """A kind of picture."""

    kind: str
    make: Callable[[], bytes]
    rule: str = ""
    """Rule of `Media()` that it breaks; "" for none."""
    like: Callable[[], Image.Image] | None = None
    """What it looks like in colours, but for losses of its format; None where it is refused, or looks like nothing."""
    note: str = ""
    """What is worth knowing, for docs/pictures.md."""
    media: dict[str, Any] = field(default_factory=dict)
    """Settings with which it is tried, beside those that a contract has by itself."""


FORMAT, BYTES, PIXELS, FRAMES, MODE, DECODES = (
    f"media.{name}" for name in ("format", "bytes", "pixels", "frames", "mode", "decodes")
)


def grey() -> Image.Image:
    return scene().convert("L").convert("RGB")


def cmyk() -> bytes:
    return file_of(scene(200, 150).convert("CMYK"), "JPEG")


def black_and_white() -> Image.Image:
    return scene().convert("L").point(lambda value: 255 * (value > 127)).convert("RGB")


JPEGS = (
    Odd("JPEG", jpeg, like=scene),
    Odd("JPEG, progressive", lambda: jpeg(progressive=True), like=scene),
    Odd("JPEG, grey", lambda: file_of(scene().convert("L"), "JPEG"), like=grey),
    Odd("JPEG in RGB instead of YCbCr", lambda: jpeg(keep_rgb=True), like=scene),
    Odd("JPEG, CMYK with Adobe's marker", lambda: file_of(scene().convert("CMYK"), "JPEG", quality=95), like=scene,
        note="colours by Pillow"),
    Odd("JPEG, CMYK without the marker", lambda: without_adobe_marker(file_of(scene().convert("CMYK"), "JPEG")),
        note="taken as ink, not as its inverse: mind the source"),
    Odd("JPEG turned by EXIF, 2 to 8", lambda: oriented(6), like=lambda: scene().transpose(Image.Transpose.ROTATE_270),
        note="turned, unless the feature says `orientation: false`"),
    Odd("JPEG with EXIF of 130 kB", with_huge_exif, like=scene),
    Odd("JPEG with other bytes behind it", lambda: jpeg() + b"trailing rubbish" * 100, like=scene),
    Odd("JPEG with a second picture behind it (MPO)", lambda: animation("MPO", 2), note="the first one"),
    Odd("JPEG, CMYK, with zeros in its middle", lambda: patched(cmyk(), len(cmyk()) - 3000, bytes(800)), DECODES),
    Odd("JPEG with a profile of colours (ICC)", lambda: jpeg(icc_profile=b"\xff" * 4000), like=scene,
        note="profiles are not looked at: the numbers are what is learned from"),
    Odd("JPEG with 40,000 empty segments", lambda: jpeg()[:2] + segment(0xE2, b"") * 40_000 + jpeg()[2:], FORMAT),
    Odd("JPEG of 65,500 x 1", lambda: file_of(scene(65_500, 1), "JPEG"), like=lambda: scene(65_500, 1)),
    Odd("JPEG of one pixel", lambda: file_of(scene(1, 1), "JPEG")),
    Odd("JPEG, its last two bytes missing", lambda: jpeg()[:-2], DECODES),
    Odd("half a JPEG", lambda: half("JPEG"), DECODES),
    Odd("a progressive JPEG without its last passes", lambda: jpeg(progressive=True)[:-300], DECODES),
    Odd("JPEG cut off in its header", lambda: jpeg()[:100], FORMAT),
    Odd("first three bytes of a JPEG", lambda: jpeg()[:3], FORMAT),
    Odd("JPEG with zeros in its middle", lambda: patched(jpeg(), len(jpeg()) - 400, bytes(200)), DECODES),
    Odd("JPEG without its quantization tables", lambda: jpeg().replace(b"\xff\xdb", b"\xff\xfe"), DECODES),
    Odd("JPEG of 12 bits", lambda: patched(jpeg(), frame_header(jpeg()) + 4, b"\x0c"), MODE),
    Odd("JPEG said to be lossless", lambda: patched(jpeg(), frame_header(jpeg()) + 1, b"\xc3"), DECODES),
    Odd("JPEG, arithmetic-coded", ARITHMETIC.read_bytes, like=scene, note="the pixels of the same JPEG in Huffman's code"),
    Odd("half a JPEG, arithmetic-coded", lambda: ARITHMETIC.read_bytes()[:300], DECODES),
    Odd("JPEG, arithmetic-coded, with zeros in its middle", lambda: patched(ARITHMETIC.read_bytes(), 300, bytes(60)),
        DECODES),
    Odd("JPEG said to be arithmetic-coded", lambda: patched(jpeg(), frame_header(jpeg()) + 1, b"\xc9"), DECODES),
    Odd("JPEG of no width", lambda: patched(jpeg(), frame_header(jpeg()) + 7, b"\0\0"), FORMAT),
    Odd("JPEG said to be 65,500 x 65,500", lambda: patched(jpeg(), frame_header(jpeg()) + 5, b"\xff\xdc" * 2), PIXELS),
    Odd("progressive JPEG of 2,000 passes", lambda: many_passes(2_000), DECODES),
)  # fmt: skip
PNGS = (
    Odd("PNG", lambda: file_of(scene(), "PNG"), like=scene),
    Odd("PNG called .jpg", lambda: file_of(scene(), "PNG"), like=scene, note="names are not looked at"),
    Odd("PNG, grey", lambda: file_of(scene().convert("L"), "PNG"), like=grey),
    Odd("PNG, black and white (1 bit)", lambda: file_of(black_and_white().convert("1"), "PNG"), like=black_and_white),
    Odd("PNG, grey of 4 bits", lambda: png(4, 4, bits=4, row=b"\x0f\x37"), note="spread over 0 to 255"),
    Odd("PNG with a palette", lambda: file_of(scene().quantize(256), "PNG"), like=scene,
        note="its colours, not its indices"),
    Odd("PNG with a palette and transparency", lambda: file_of(scene().quantize(256), "PNG", transparency=bytes(range(256))),
        like=scene, note="transparent pixels keep their colour"),
    Odd("PNG with one transparent colour", lambda: file_of(scene(), "PNG", transparency=(0, 0, 0)), like=scene),
    Odd("PNG, grey and alpha", lambda: file_of(see_through("LA"), "PNG"), like=grey, note="alpha is left out"),
    Odd("PNG, colours and alpha", lambda: file_of(see_through(), "PNG"), like=scene,
        note="alpha is left out, unless `mode: RGBA`"),
    Odd("PNG turned by EXIF", lambda: oriented(3, "PNG"), like=lambda: scene().transpose(Image.Transpose.ROTATE_180)),
    Odd("PNG, interlaced", interlaced, like=scene),
    Odd("PNG with other bytes behind it", lambda: file_of(scene(), "PNG") + b"trailing rubbish", like=scene),
    Odd("PNG, grey of 16 bits", lambda: file_of(Image.fromarray(np.full((4, 4), 1000, np.uint16)), "PNG"), MODE,
        note='upper eight bits with `modes: ["L;16", ...]`'),
    Odd("PNG, colours of 16 bits", lambda: png(4, 4, bits=16, colours=2), MODE),
    Odd("PNG, animated", lambda: animation("PNG"), FRAMES, note="the first picture with `max_frames: 3`"),
    Odd("PNG without its last chunk", lambda: file_of(scene(), "PNG")[:-12], DECODES),
    Odd("half a PNG", lambda: half("PNG"), DECODES),
    Odd("PNG with a changed pixel", lambda: patched(png(4, 4), 50, b"\x55"), DECODES),
    Odd("PNG with fewer rows than it says", lambda: patched(png(4, 4), 16, struct.pack(">II", 4, 8)), DECODES),
    Odd("PNG cut off in its header", lambda: file_of(scene(), "PNG")[:20], FORMAT),
    Odd("PNG of no width", lambda: png(0, 4), FORMAT),
    Odd("PNG with colours that there are not", lambda: png(4, 4, bits=3), FORMAT),
    Odd("PNG with a text of 50 MB in 50 kB", text_bomb, DECODES),
    Odd("PNG with a profile of colours of 50 MB in 50 kB", lambda: before_pixels(png(4, 4),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000)))), DECODES),
    Odd("PNG with two headers", two_headers, FORMAT),
    Odd("PNG of 40,000 chunks", lambda: before_pixels(png(4, 4), chunk(b"tEXt", b"") * 40_000), FORMAT),
    Odd("PNG of 2,000,000 x 1", lambda: png(2_000_000, 1, bits=1), PIXELS),
    Odd("PNG of 20,000 x 20,000 in 48 kB", lambda: png(20_000, 20_000, bits=1), PIXELS),
    Odd("PNG of 100 megapixels", lambda: png(10_000, 10_000, bits=1), PIXELS, note="with `max_pixels: 100000000`"),
)  # fmt: skip
OTHERS = (
    Odd("GIF", lambda: file_of(scene().quantize(128), "GIF"), like=scene),
    Odd("GIF, animated", lambda: animation("GIF"), FRAMES, note="the first picture with `max_frames: 3`"),
    Odd("GIF without its last two bytes", lambda: file_of(scene().quantize(128), "GIF")[:-2], like=scene,
        note="no pixel is in them"),
    Odd("half a GIF", lambda: half("GIF"), DECODES),
    Odd("WebP", lambda: file_of(scene(), "WEBP", quality=95), like=scene),
    Odd("WebP, lossless with alpha", lambda: file_of(see_through(), "WEBP", lossless=True, exact=True), like=scene,
        note="alpha is left out"),
    Odd("WebP turned by EXIF", lambda: oriented(8, "WEBP", quality=95),
        like=lambda: scene().transpose(Image.Transpose.ROTATE_90)),
    Odd("WebP, animated", lambda: animation("WEBP"), FRAMES, note="the first picture with `max_frames: 3`"),
    Odd("half a WebP", lambda: half("WEBP"), DECODES),
    Odd("WebP with zeros in its middle", lambda: patched(file_of(scene(200, 150), "WEBP"), 1000, bytes(100)),
        note="other pixels, not noticed: it has no checksums"),
    Odd("WebP said to be 16,384 x 16,384", lambda: patched(oriented(1, "WEBP"), 24, b"\xff\x3f\0" * 2), PIXELS),
    Odd("BMP", lambda: file_of(scene(), "BMP"), like=scene),
    Odd("BMP with a palette", lambda: file_of(scene().quantize(256), "BMP"), like=scene),
    Odd("BMP, black and white (1 bit)", lambda: file_of(black_and_white().convert("1"), "BMP"), like=black_and_white),
    Odd("half a BMP", lambda: half("BMP"), DECODES),
    Odd("TIFF", lambda: file_of(scene(), "TIFF"), like=scene),
    Odd("TIFF, packed (LZW)", lambda: file_of(scene(), "TIFF", compression="tiff_lzw"), like=scene),
    Odd("TIFF, CMYK", lambda: file_of(scene().convert("CMYK"), "TIFF"), like=scene),
    Odd("TIFF of two pages", lambda: file_of(scene(), "TIFF", save_all=True, append_images=[scene(seed=1)]), FRAMES),
    Odd("TIFF whose pages lead round in a ring", lambda: tiff(3, is_ring=True), FRAMES),
    Odd("TIFF in tiles", lambda: huge_tile(64), note="a tile may be larger than the picture"),
    Odd("TIFF of 16 x 16 in a tile of 5,000 x 5,000", lambda: huge_tile(5_000), FORMAT),
    Odd("TIFF of 40,000 pages", lambda: tiff(40_000), FORMAT),
    Odd("TIFF of floats", lambda: file_of(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), MODE),
    Odd("TIFF, grey of 16 bits", lambda: file_of(Image.fromarray(np.full((4, 4), 1000, np.uint16)), "TIFF"), MODE),
    Odd("half a TIFF", lambda: half("TIFF"), DECODES),
    Odd("AVIF", lambda: file_of(scene(), "AVIF", quality=95), like=scene, note="of ten or twelve bits the upper eight"),
    Odd("AVIF, animated", lambda: animation("AVIF"), FRAMES),
    Odd("half an AVIF", lambda: half("AVIF"), FORMAT),
)  # fmt: skip
NO_PICTURES = (
    Odd("no bytes", lambda: b"", BYTES),
    Odd("JPEG of more bytes than `max_bytes`", jpeg, BYTES, media={"max_bytes": 500}),
    Odd("PNG where `formats: [jpeg]`", lambda: file_of(scene(), "PNG"), FORMAT, media={"formats": ["jpeg"]}),
    Odd("picture smaller than `min_pixels`", lambda: file_of(scene(9, 9), "PNG"), PIXELS, media={"min_pixels": 100}),
    Odd("colours where `modes: [L]`", jpeg, MODE, media={"modes": ["L"]}),
    Odd("text called .jpg", lambda: b"id,name\n1,Ada\n" * 50, FORMAT),
    Odd("a page of a web server called .jpg", lambda: b"<!DOCTYPE html><title>404</title>", FORMAT),
    Odd("zeros", lambda: bytes(1000), FORMAT),
    Odd("SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', FORMAT),
    Odd("PDF", lambda: file_of(scene(), "PDF"), FORMAT),
    Odd("JPEG 2000", lambda: file_of(scene(), "JPEG2000"), FORMAT),
    Odd("HEIC", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), FORMAT),
    Odd("icon", lambda: file_of(scene(), "ICO"), FORMAT),
    Odd("JPEG packed by gzip", lambda: gzip.compress(jpeg()), FORMAT),
)
CORPUS = (*JPEGS, *PNGS, *OTHERS, *NO_PICTURES)
