"""A picture as it is to be seen: the orientations that cameras note in EXIF. Runs anywhere."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

EXCHANGED = (5, 6, 7, 8)
"""Orientations that exchange height and width."""


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return pixels (H, W, C) as they are to be seen."""
    if orientation == 1:
        return pixels
    if orientation in EXCHANGED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turned_image(image: "Image", orientation: int) -> "Image":
    """Return the same of Pillow's picture, without a second copy of it as an array."""
    from PIL.Image import Transpose

    operation = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if operation is None else image.transpose(operation)
