"""Operations of augmentation on single pictures, by torchvision on Pillow's pictures. Runs anywhere.

On tensors torchvision computes some of them with all threads of torch, whose number changes the last bits of means; on
pictures of Pillow it computes in whole numbers, in the thread that calls it.
"""

import importlib
import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

Numbers: TypeAlias = list[float]
"""Random numbers in [0, 1) of one picture."""

_BINS = 31
"""Strengths from 0 to 30, the greatest."""
_TRANSLATION = 150 / 331  # of the side; from AutoAugment, whose pictures had 331 pixels


def load() -> None:
    """Import torchvision, so that it takes no time later.

    Raises:
        ConfigError: it is not installed.
    """
    _functional()


def change(
    pictures: NDArray[np.uint8], draws: NDArray[np.float64], changed: "Callable[[Image, Numbers], Image]"
) -> None:
    """Change each of the pictures (n, C, H, W) in place: one or three channels."""
    from PIL import Image

    for picture, numbers in zip(pictures, draws.tolist(), strict=True):
        is_grey = len(picture) == 1
        before = Image.fromarray(picture[0] if is_grey else np.ascontiguousarray(picture.transpose(1, 2, 0)))
        after = changed(before, numbers)
        if after is not before:
            values = np.asarray(after)
            picture[...] = values if is_grey else values.transpose(2, 0, 1)


def jittered(image: "Image", strengths: tuple[float, float, float, float], numbers: Numbers) -> "Image":
    """Return the picture with brightness, contrast, saturation and hue changed by up to `strengths`, in random order."""
    functional = _functional()
    operations = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for which in sorted(range(4), key=lambda number: numbers[4 + number]):
        strength = strengths[which]
        if not strength or (which >= 2 and image.mode == "L"):
            continue
        centre = 0.0 if which == 3 else 1.0
        least = centre - strength if which == 3 else max(0.0, centre - strength)
        image = operations[which](image, least + numbers[which] * (centre + strength - least))
    return image


def rand_augmented(image: "Image", magnitude: int, numbers: Numbers) -> "Image":
    """Return the picture after an operation for each two numbers: which one, and its direction."""
    for which, sign in zip(numbers[::2], numbers[1::2], strict=True):
        operation = _RAND[int(which * len(_RAND))]
        image = operation(image, magnitude / (_BINS - 1), -1.0 if sign < 0.5 else 1.0)
    return image


def trivially_augmented(image: "Image", numbers: Numbers) -> "Image":
    """Return the picture after one operation: which one, how strong, in which direction."""
    which, strength, sign = numbers
    operation = _TRIVIAL[int(which * len(_TRIVIAL))]
    result: Image = operation(image, int(strength * _BINS) / (_BINS - 1), -1.0 if sign < 0.5 else 1.0)
    return result


Operation: TypeAlias = Callable[[Any, float, float], Any]
"""Function of a picture, a strength from 0 to 1 and a direction, -1 or 1, that returns a picture."""


def _operations(shear: float, degrees: float, factor: float, bits: int, pixels: float | None) -> list[Operation]:
    """Return the fourteen operations; `pixels` is the greatest translation, None: a share of the side."""

    def sheared(horizontal: bool) -> Operation:
        def operation(image: Any, strength: float, sign: float) -> Any:
            angle = math.degrees(math.atan(shear * strength * sign))
            shears = [angle, 0.0] if horizontal else [0.0, angle]
            return _functional().affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=shears, center=[0, 0])

        return operation

    def moved(axis: int) -> Operation:
        def operation(image: Any, strength: float, sign: float) -> Any:
            most = _TRANSLATION * image.size[axis] if pixels is None else pixels
            distance = int(most * strength * sign)
            translation = [distance, 0] if axis == 0 else [0, distance]
            return _functional().affine(image, angle=0.0, translate=translation, scale=1.0, shear=[0.0, 0.0])

        return operation

    def adjusted(name: str) -> Operation:
        return lambda image, strength, sign: getattr(_functional(), name)(image, 1.0 + factor * strength * sign)

    return [
        lambda image, strength, sign: image,
        sheared(horizontal=True),
        sheared(horizontal=False),
        moved(axis=0),
        moved(axis=1),
        lambda image, strength, sign: _functional().rotate(image, angle=degrees * strength * sign),
        adjusted("adjust_brightness"),
        adjusted("adjust_saturation"),
        adjusted("adjust_contrast"),
        adjusted("adjust_sharpness"),
        lambda image, strength, sign: _functional().posterize(image, bits=8 - round(bits * strength)),
        lambda image, strength, sign: _functional().solarize(image, threshold=255 * (1.0 - strength)),
        lambda image, strength, sign: _functional().autocontrast(image),
        lambda image, strength, sign: _functional().equalize(image),
    ]


_RAND = _operations(shear=0.3, degrees=30.0, factor=0.9, bits=4, pixels=None)
_TRIVIAL = _operations(shear=0.99, degrees=135.0, factor=0.99, bits=6, pixels=32.0)


@cache
def _functional() -> Any:
    """Return torchvision's functions.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("torchvision.transforms.v2.functional")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, and color_jitter, rand_augment and trivial_augment need it: install "
            f"mlspark[pictures] on every node"
        ) from None
