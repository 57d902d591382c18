"""What a profile says of one picture: how bright its pixels are, and what it looks like, small. Runs anywhere."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlspark.pictures import decoder, turning
from mlspark.pictures.decoder import Probe
from mlspark.pictures.headers import Data
from mlspark.pictures.spec import PictureSpec

CHANNELS = ("grey", "red", "green", "blue")
"""What `values` counts: brightness as Pillow computes it (ITU-R 601-2), then the three colours."""
NUM_VALUES = 256
THUMBNAIL_SIDE = 64
"""Longer side of a thumbnail, in pixels; smaller pictures stay as they are."""

_GREY_MODES = ("1", "L", "LA", "L;16", "LA;16")
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a file that browsers show."""

    media_type: str
    """image/png where the picture is whole, image/jpeg where it was reduced."""
    data: bytes
    width: int
    height: int
    """Size of the picture itself as it is to be seen, in pixels."""


def seen_size(header: Probe) -> tuple[int, int]:
    """Return width and height of a picture as it is to be seen, turned as EXIF says."""
    size = header.width, header.height
    return (size[1], size[0]) if header.orientation in turning.EXCHANGED else size


def values(data: Data, header: Probe) -> NDArray[np.int64]:
    """Return how many pixels have each value, (4, 256): of each of `CHANNELS`. A grey picture has the same in all of them.

    Raises:
        PictureError: the picture cannot be read; says why.
    """
    if header.mode in _GREY_MODES:
        grey = decoder.image(data, "L").histogram()
        return np.tile(np.array(grey, np.int64), (len(CHANNELS), 1))
    picture = decoder.image(data, "RGB")
    return np.array([*picture.convert("L").histogram(), *picture.histogram()], np.int64).reshape(len(CHANNELS), -1)


def brightness(of_pixels: NDArray[np.int64]) -> float:
    """Return the mean, 0 to 255, of the brightness that `values` counted."""
    grey = of_pixels[0]
    return int(grey @ np.arange(NUM_VALUES)) / int(grey.sum())


def thumbnail(data: Data, header: Probe) -> Thumbnail:
    """Return a picture so small that a page can hold many of them, turned as EXIF says.

    Raises:
        PictureError: the picture cannot be read; says why.
    """
    from PIL import Image

    width, height = seen_size(header)
    shrink = max(width, height) / THUMBNAIL_SIDE
    small = (width, height) if shrink <= 1 else (max(1, round(width / shrink)), max(1, round(height / shrink)))
    is_grey = header.mode in _GREY_MODES
    pixels = decoder.encoded(data, PictureSpec("L" if is_grey else "RGB", height=small[1], width=small[0]))
    picture = Image.fromarray(pixels[0] if is_grey else pixels.transpose(1, 2, 0))
    kind = "PNG" if shrink <= 1 else "JPEG"
    file = io.BytesIO()
    picture.save(file, kind, **({"optimize": True} if kind == "PNG" else {"quality": _JPEG_QUALITY}))
    return Thumbnail(f"image/{kind.lower()}", file.getvalue(), width, height)
