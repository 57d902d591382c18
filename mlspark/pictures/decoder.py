"""The one decoder: a picture's file becomes uint8 pixels, the same ones wherever it is done. Runs anywhere; needs no Spark.

JPEG by simplejpeg, with the bits of Pillow and several times its speed; CMYK and every other format by Pillow. Both release
the interpreter while they decode and resize, so threads decode side by side. What cannot be read is refused as a whole: no
picture is filled up with grey.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import ConfigError, PictureError, one_line
from mlspark.pictures import headers, turning
from mlspark.pictures.headers import Data
from mlspark.pictures.spec import PictureSpec

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Pixels above which nothing is decoded, whatever a contract says: 300 MB of colours."""
MAX_SIDE = 1_000_000
"""Pixels of a side above which nothing is decoded: resizing takes memory by the longer side, 2 GB for 50 million x 1."""
MAX_SCANS = 500
"""Passes over a progressive JPEG above which it is refused: a small file can ask for thousands of them."""
Mode = Literal["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "L;16", "LA;16", "RGB;16", "RGBA;16"]
EIGHT_BITS: tuple[Mode, ...] = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
SIXTEEN_BITS: tuple[Mode, ...] = ("L;16", "LA;16", "RGB;16", "RGBA;16")
"""Modes of pictures with sixteen bits a channel, of which the upper eight are kept."""
MODES: tuple[Mode, ...] = (*EIGHT_BITS, *SIXTEEN_BITS)
"""Colour modes that can be read: as Pillow calls them, with ";16" where a channel has sixteen bits."""

_CLASSES = {
    "jpeg": "JpegImagePlugin.JpegImageFile",
    "png": "PngImagePlugin.PngImageFile",
    "gif": "GifImagePlugin.GifImageFile",
    "webp": "WebPImagePlugin.WebPImageFile",
    "bmp": "BmpImagePlugin.BmpImageFile",
    "tiff": "TiffImagePlugin.TiffImageFile",
    "avif": "AvifImagePlugin.AvifImageFile",
}
_COLORSPACES = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK"}
_REDUCTIONS = (8, 4, 2)
_SIDES_OF_A_TILE, _MOST_OF_A_TILE = (322, 323), 2**24
"""Tags of a TIFF, and pixels that a tile may have whatever the picture's size."""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Probe:
    """What a picture's header says; no pixel is decoded for it."""

    format: str
    """One of `headers.FORMATS`."""
    width: int
    height: int
    """Size as stored, in pixels, before any orientation is applied."""
    mode: str
    """Colour mode: one of `MODES`, or another that cannot be read ("F", "LAB", "RGB;12")."""
    bits: int
    """Bits of a channel."""
    num_frames: int
    """Pictures of an animation, pages of a TIFF; the first one is decoded."""
    orientation: int
    """1 to 8 as in EXIF; 1 where nothing is to be turned. A TIFF's own is applied by whatever reads it, and is 1 here."""
    has_transparency: bool

    @property
    def num_pixels(self) -> int:
        return self.width * self.height


@lru_cache(maxsize=1)
def version() -> str:
    """Return what decodes pictures here; two processes with the same one compute the same pixels.

    Raises:
        ConfigError: the packages are not installed.
    """
    try:
        return ", ".join(f"{name} {metadata.version(name.lower())}" for name in ("simplejpeg", "Pillow"))
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, and columns of pictures need it: install mlspark[pictures] on every node"
        ) from None


def load() -> None:
    """Import the libraries, so that it takes no time later.

    Raises:
        ConfigError: the packages are not installed.
    """
    for name in ("simplejpeg", "PIL.Image"):
        _library(name)


def probe(data: Data) -> Probe:
    """Return what a picture's header says.

    Raises:
        PictureError: the file is of no format that is read, or its header is damaged.
    """
    kind = _format(data)
    if kind == "jpeg":
        jpeg = headers.jpeg_header(data)
        mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(jpeg.components, f"{jpeg.components} channels")
        mode = mode if jpeg.bits == 8 else f"{mode};{jpeg.bits}"
        return Probe(kind, jpeg.width, jpeg.height, mode, jpeg.bits, 1, jpeg.orientation, False)
    if kind == "png":
        png = headers.png_header(data)
        return Probe(
            kind, png.width, png.height, png.mode, png.bits, png.num_frames, png.orientation, png.has_transparency
        )
    if kind == "webp":  # Pillow takes the memory of two whole pictures to tell its size
        webp = headers.webp_header(data)
        mode = "RGBA" if webp.has_alpha else "RGB"
        return Probe(kind, webp.width, webp.height, mode, 8, webp.num_frames, webp.orientation, webp.has_alpha)
    return _told(kind, "header cannot be read", lambda: _probed(kind, data))


def decode(
    data: Data, mode: str, *, orientation: bool = True, at_least: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the pixels of a picture, (H, W, C), C-contiguous.

    Transparent pixels keep their colour, and nothing is blended. Of sixteen bits the upper eight are kept.

    Args:
        data: the file.
        mode: L, RGB or RGBA: 1, 3 or 4 channels. L of a JPEG is its own brightness.
        orientation: apply the orientation of EXIF.
        at_least: (height, width): a JPEG may be reduced by 2, 4 or 8 as long as both sides of the result are that long.

    Raises:
        PictureError: the picture cannot be read; says why.
    """
    return _array(_read(data, mode, orientation, at_least))


def image(data: Data, mode: str) -> "Image":
    """Return a picture as Pillow's own, in L, RGB or RGBA, not turned: what `decode` returns without a second copy.

    Raises:
        PictureError: the picture cannot be read; says why.
    """
    return _image(_read(data, mode, False, None))


def encoded(data: Data, spec: PictureSpec) -> NDArray[np.uint8]:
    """Return a picture as its tensor, (C, H, W): decoded, turned, resized, as `spec` says.

    A JPEG with sides at least four times those of the tensor is reduced by its decoder first, to no less than twice the
    tensor's sides, unless the interpolation is nearest.

    Raises:
        PictureError: the picture cannot be read; says why.
    """
    at_least = None if spec.interpolation == "nearest" else (2 * spec.height, 2 * spec.width)
    picture = _read(data, spec.mode, spec.orientation, at_least)
    size = (picture.shape[1], picture.shape[0]) if isinstance(picture, np.ndarray) else picture.size
    if size != (spec.width, spec.height):
        picture = _resized(_image(picture), spec)
    return np.ascontiguousarray(_array(picture).transpose(2, 0, 1))


def from_stored(value: Data, spec: PictureSpec) -> NDArray[np.uint8]:
    """Return the tensor, (C, H, W), of what a feature table holds; a view of `value` where that is pixels.

    Raises:
        PictureError: the picture cannot be read, or has not the bytes that a tensor of this size has.
    """
    if spec.store == "encoded":
        return encoded(value, spec)
    if len(value) != spec.num_bytes:
        raise PictureError(f"{len(value):,} bytes are no tensor of {spec.shape}, which has {spec.num_bytes:,}")
    return np.frombuffer(value, np.uint8).reshape(spec.shape)


def check_decodes(data: Data) -> None:
    """Decode a picture and keep nothing of it, in less memory and time than `decode` where the format allows it.

    Raises:
        PictureError: the picture cannot be read; says why, in the words of `decode`.
    """
    kind = _format(data)
    if kind == "jpeg" and headers.jpeg_header(data).components in (1, 3):
        _read(data, "L", False, (1, 1))  # all of the file is read whatever the scale
    else:
        _loaded(kind, data)


def perceptual_hash(data: Data) -> int:
    """Return 64 bits that pictures which look alike share, or nearly so (dHash): whether it grows brighter to the right.

    The picture is made grey and 9 x 8 pixels, turned as EXIF says.

    Raises:
        PictureError: the picture cannot be read; says why.
    """
    pixels = encoded(data, PictureSpec("L", 8, 9))[0]
    bits = np.packbits(pixels[:, 1:] > pixels[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def _format(data: Data) -> str:
    kind = headers.format_of(data)
    if not kind:
        what = headers.other_format(data) if len(data) else "no bytes at all"
        raise PictureError(f"no picture that can be read ({what}); read are {', '.join(headers.FORMATS)}")
    return kind


def _read(data: Data, mode: str, orientation: bool, at_least: tuple[int, int] | None) -> "NDArray[np.uint8] | Image":
    """Return a picture decoded, turned and in its mode: an array (H, W, C) of most JPEGs, else Pillow's."""
    kind = _format(data)
    if kind == "jpeg":
        header = headers.jpeg_header(data)
        if header.components in (1, 3):
            _refuse_bomb(kind, header.width, header.height)
            turn = header.orientation if orientation else 1
            if at_least is not None and turn in turning.EXCHANGED:
                at_least = at_least[1], at_least[0]
            return turning.turned(_jpeg(data, header, mode, at_least), turn)
    image = _loaded(kind, data)
    turn = _orientation(kind, image, data) if orientation else 1
    return turning.turned_image(_told(kind, "cannot be decoded", lambda: _in_mode(image, mode)), turn)


def _jpeg(data: Data, header: headers.JpegHeader, mode: str, at_least: tuple[int, int] | None) -> NDArray[np.uint8]:
    simplejpeg = _library("simplejpeg")
    if header.is_progressive and (num_scans := bytes(data).count(b"\xff\xda")) > MAX_SCANS:
        raise PictureError(f"jpeg: {num_scans:,} passes over its pixels, more than {MAX_SCANS}")
    height = width = 0
    if at_least is not None:
        for reduction in _REDUCTIONS:
            # As the library rounds: upwards.
            reduced = -(-header.height // reduction), -(-header.width // reduction)
            if reduced[0] >= at_least[0] and reduced[1] >= at_least[1]:
                height, width = reduced
                break
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, _COLORSPACES[mode], fastdct=False, fastupsample=False, min_height=height, min_width=width
        )
    except (ValueError, MemoryError) as error:
        raise PictureError(f"jpeg: cannot be decoded: {_words(error)}") from error
    return pixels


def _loaded(kind: str, data: Data) -> "Image":
    """Return a picture that Pillow has decoded, its first frame, in its own mode."""
    if kind == "jpeg" and (jpeg := headers.jpeg_header(data)).components == 4:
        _refuse_bomb(kind, jpeg.width, jpeg.height)
        _jpeg(data, jpeg, "CMYK", (1, 1))  # Pillow passes over damage that the other library names
    elif kind == "webp":
        webp = headers.webp_header(data)
        _refuse_bomb(kind, webp.width, webp.height)
    elif kind == "png":
        png = headers.png_header(data)
        _refuse_bomb(kind, png.width, png.height)
        headers.png_header(data, is_whole=True)
    image = _told(kind, "header cannot be read", lambda: _opened(kind, data))
    _refuse_bomb(kind, *image.size)
    _told(kind, "cannot be decoded", image.load)
    return image


def _refuse_bomb(kind: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        most = f"{MAX_PIXELS:,}, or {MAX_SIDE:,} of a side"
        raise PictureError(f"{kind}: {width} x {height} pixels, more than {most}, which nothing here decodes")


def _opened(kind: str, data: Data) -> "Image":
    """Return a picture of Pillow's, its header read. `Image.open` would look at the size after some decoders use it."""
    module, name = _CLASSES[kind].split(".")
    opened = cast("Image", getattr(_library(f"PIL.{module}"), name)(BytesIO(data)))
    if kind == "tiff":
        tile_width, tile_height = (opened.tag_v2.get(tag, 0) for tag in _SIDES_OF_A_TILE)  # type: ignore[attr-defined]
        most = max(_MOST_OF_A_TILE, (opened.width + 16) * (opened.height + 16))
        if tile_width * tile_height > most:  # a tile is unpacked whole, whatever part of it the picture has
            raise PictureError(
                f"a tile of {tile_width:,} x {tile_height:,} in a picture of {opened.width} x {opened.height}"
            )
    return opened


def _probed(kind: str, data: Data) -> Probe:
    image = _opened(kind, data)
    width, height = image.size
    mode, bits = image.mode, 8
    if mode.startswith("I;16"):
        mode, bits = "L;16", 16
    elif mode in ("I", "F"):
        bits = 32
    elif mode == "1":
        bits = 1
    has_transparency = mode.split(";")[0] in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    num_frames = headers.tiff_pages(data) if kind == "tiff" else int(getattr(image, "n_frames", 1))
    return Probe(kind, width, height, mode, bits, num_frames, _orientation(kind, image, data), has_transparency)


def _orientation(kind: str, image: "Image", data: Data) -> int:
    if kind == "jpeg":
        return headers.jpeg_header(data).orientation
    if kind == "png":
        return headers.png_header(data).orientation
    if kind == "tiff":
        return 1
    exif = image.info.get("exif")
    return headers.exif_orientation(exif.removeprefix(b"Exif\x00\x00")) if isinstance(exif, bytes) else 1


def _in_mode(image: "Image", mode: str) -> "Image":
    from PIL import Image as PilImage

    if image.mode.startswith("I;16"):
        # Pillow's own conversion cuts everything above 255.
        upper = (np.asarray(image) >> 8).astype(np.uint8)
        return PilImage.fromarray(upper).convert(mode)
    if image.mode in ("I", "F"):
        raise PictureError(f"mode {image.mode} has numbers of 32 bits and no range that is known")
    if mode != "RGBA":
        image.info.pop("transparency", None)  # the colour stays; Pillow warns where it cannot keep track of it
    return image.convert(mode) if image.mode != mode else image


def _resized(image: "Image", spec: PictureSpec) -> "Image":
    from PIL import Image as PilImage

    how = PilImage.Resampling[spec.interpolation.upper()]
    width, height = image.size
    if spec.resize == "exact":
        return image.resize((spec.width, spec.height), how)
    if spec.resize == "crop":
        # The part in the middle that has the ratio of the tensor, in one step.
        shrink = min(width / spec.width, height / spec.height)
        left, top = (width - spec.width * shrink) / 2, (height - spec.height * shrink) / 2
        box = max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height)
        return image.resize((spec.width, spec.height), how, box=box)
    shrink = max(width / spec.width, height / spec.height)
    inner = max(1, min(spec.width, round(width / shrink))), max(1, min(spec.height, round(height / shrink)))
    canvas = PilImage.new(spec.mode, (spec.width, spec.height))
    canvas.paste(image.resize(inner, how), ((spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2))
    return canvas


def _image(picture: "NDArray[np.uint8] | Image") -> "Image":
    from PIL import Image as PilImage

    if not isinstance(picture, np.ndarray):
        return picture
    return PilImage.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def _array(picture: "NDArray[np.uint8] | Image") -> NDArray[np.uint8]:
    if isinstance(picture, np.ndarray):
        return picture
    pixels = np.array(picture)  # asarray is not to be written to
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def _told(kind: str, what: str, read: Callable[[], _Result]) -> _Result:
    """Return what `read` does; whatever a library raises at a damaged file becomes a PictureError."""
    try:
        return read()
    except ConfigError:
        raise
    except Exception as error:
        raise PictureError(f"{kind}: {what}: {_words(error)}") from error


def _words(error: Exception) -> str:
    return one_line(str(error)) if str(error).strip() else type(error).__name__


@lru_cache
def _library(name: str) -> Any:
    version()  # says what to install
    return importlib.import_module(name)
