"""What is done to pictures at random while a model trains: settings, and their effect on a batch. Runs anywhere.

A kind says how many random numbers it needs for each picture, and changes a batch (n, C, H, W) in place by those that it is
given: it draws none itself, so that a picture is changed in the same way in whatever batch, thread or rank it is.
"""

import math
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlspark.pictures import colours
from mlspark.section import Section

Pictures: TypeAlias = NDArray[np.uint8]
"""(n, C, H, W)."""
Draws: TypeAlias = NDArray[np.float64]
"""Random numbers in [0, 1): one row for each picture, one column for each number that the kind asks for."""

_ATTEMPTS = 5  # at a crop that lies within the picture; one in seven of the default ratios does not

Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
Strength: TypeAlias = Annotated[float, Field(ge=0.0)]


class Crop(Section):
    """The picture moved at random by up to `padding` pixels in each direction; zeros come in at its edges."""

    kind: Literal["crop"] = "crop"
    padding: Annotated[int, Field(ge=1)] = 4
    """Number of pixels by which each side of the picture is extended before its own size is cut out of it."""

    num_draws: ClassVar[int] = 2

    def apply(self, pictures: Pictures, draws: Draws) -> None:
        count, _, height, width = pictures.shape
        size, edge = pictures[0].size, self.padding * (width + 1)
        top, left = (draws.T * (2 * self.padding + 1)).astype(np.int64)
        # A picture moved is its memory from another byte on, where it lies in a row with others; what came in at its edges
        # is of other pictures or rows, and is masked. One copy of a picture: a third of the time of one for each row.
        memory = np.empty(count * size + 2 * edge, np.uint8)
        memory[edge : edge + count * size] = pictures.reshape(-1)
        from_any_byte = np.ndarray((len(memory) - size + 1,), f"V{size}", memory, strides=(1,))
        moved = from_any_byte[np.arange(count) * size + top * width + left].view(np.uint8).reshape(pictures.shape)
        masks = _masks_of_moved(self.padding, height, width)[top, left]
        np.bitwise_and(moved, masks[:, np.newaxis], out=pictures)


class ResizedCrop(Section):
    """A part of the picture, of random size, ratio and place, resized to the size of the tensor. Must come first.

    It is cut out of the picture as it was before any resize, which it takes the place of, where pictures are stored encoded.
    """

    kind: Literal["resized_crop"] = "resized_crop"
    scale: tuple[Annotated[float, Field(gt=0.0, le=1.0)], Annotated[float, Field(gt=0.0, le=1.0)]] = (0.08, 1.0)
    """Least and greatest share of the picture's area."""
    ratio: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (3 / 4, 4 / 3)
    """Least and greatest width of the part divided by its height."""

    num_draws: ClassVar[int] = 2 + 2 * _ATTEMPTS

    @model_validator(mode="after")
    def _is_in_order(self) -> "ResizedCrop":
        _refuse_backwards(scale=self.scale, ratio=self.ratio)
        return self

    def boxes(self, sizes: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        """Return (n, 4): top, left, height, width of the part of each picture, whose heights and widths are `sizes` (n, 2).

        The rule is that of torchvision's RandomResizedCrop: the first attempt at an area and a ratio that fits into the
        picture, else the greatest part in its middle that has an allowed ratio.
        """
        heights, widths = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
        shares = self.scale[0] + draws[:, 2::2] * (self.scale[1] - self.scale[0])
        logs = math.log(self.ratio[0]) + draws[:, 3::2] * math.log(self.ratio[1] / self.ratio[0])
        areas, ratios = heights * widths * shares, np.exp(logs)
        wide, high = np.round(np.sqrt(areas * ratios)), np.round(np.sqrt(areas / ratios))
        fits = (wide >= 1) & (wide <= widths) & (high >= 1) & (high <= heights)
        first, every = fits.argmax(axis=1), np.arange(len(sizes))
        of_picture = np.clip(widths / heights, *self.ratio)[:, 0]
        whole_high = np.minimum(heights[:, 0], np.round(widths[:, 0] / of_picture))
        whole_wide = np.minimum(widths[:, 0], np.round(heights[:, 0] * of_picture))
        is_fitting = fits.any(axis=1)
        high = np.where(is_fitting, high[every, first], np.maximum(whole_high, 1.0))
        wide = np.where(is_fitting, wide[every, first], np.maximum(whole_wide, 1.0))
        rest_high, rest_wide = heights[:, 0] - high, widths[:, 0] - wide
        top = np.floor(np.where(is_fitting, draws[:, 0] * (rest_high + 1), rest_high / 2))
        left = np.floor(np.where(is_fitting, draws[:, 1] * (rest_wide + 1), rest_wide / 2))
        return np.stack([top, left, high, wide], axis=1).astype(np.int64)


class Flip(Section):
    """The picture mirrored."""

    kind: Literal["flip"] = "flip"
    horizontal: Share = 0.5
    """Share of the pictures whose left and right are exchanged."""
    vertical: Share = 0.0
    """Share of the pictures whose top and bottom are exchanged."""

    num_draws: ClassVar[int] = 2

    def apply(self, pictures: Pictures, draws: Draws) -> None:
        rows = np.flatnonzero(draws[:, 0] < self.horizontal)
        pictures[rows] = _mirrored(pictures[rows])
        rows = np.flatnonzero(draws[:, 1] < self.vertical)
        pictures[rows] = pictures[rows][:, :, ::-1]


class Erasing(Section):
    """A rectangle of the picture painted over, in some of the pictures."""

    kind: Literal["erasing"] = "erasing"
    share: Share = 0.5
    """Share of the pictures that lose a rectangle."""
    scale: tuple[Annotated[float, Field(gt=0.0, le=1.0)], Annotated[float, Field(gt=0.0, le=1.0)]] = (0.02, 0.33)
    """Least and greatest share of the picture's area."""
    ratio: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (0.3, 3.3)
    """Least and greatest height of the rectangle divided by its width; what would stand out of the picture is cut off."""
    value: Annotated[int, Field(ge=0, le=255)] = 0
    """Value of all channels of the rectangle."""

    num_draws: ClassVar[int] = 5

    @model_validator(mode="after")
    def _is_in_order(self) -> "Erasing":
        _refuse_backwards(scale=self.scale, ratio=self.ratio)
        return self

    def apply(self, pictures: Pictures, draws: Draws) -> None:
        rows = np.flatnonzero(draws[:, 0] < self.share)
        height, width = pictures.shape[2:]
        areas = height * width * (self.scale[0] + draws[rows, 1] * (self.scale[1] - self.scale[0]))
        ratios = np.exp(math.log(self.ratio[0]) + draws[rows, 2] * math.log(self.ratio[1] / self.ratio[0]))
        high = np.clip(np.round(np.sqrt(areas * ratios)), 1, height).astype(np.int64)
        wide = np.clip(np.round(np.sqrt(areas / ratios)), 1, width).astype(np.int64)
        top = (draws[rows, 3] * (height - high + 1)).astype(np.int64)
        left = (draws[rows, 4] * (width - wide + 1)).astype(np.int64)
        for row, y, x, h, w in np.stack([rows, top, left, high, wide], axis=1).tolist():
            pictures[row, :, y : y + h, x : x + w] = self.value


class ColorJitter(Section):
    """Brightness, contrast, saturation and hue changed, in random order. Grey pictures have the first two only."""

    kind: Literal["color_jitter"] = "color_jitter"
    brightness: Strength = 0.0
    """Greatest change: the factor is between 1 - brightness, at least 0, and 1 + brightness."""
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Greatest turn of the colour circle, in either direction; 0.5 is half a turn."""

    num_draws: ClassVar[int] = 8

    def apply(self, pictures: Pictures, draws: Draws) -> None:
        strengths = self.brightness, self.contrast, self.saturation, self.hue
        colours.change(pictures, draws, lambda image, numbers: colours.jittered(image, strengths, numbers))


class RandAugment(Section):
    """Some operations out of fourteen, chosen at random, all as strong: RandAugment, arXiv:1909.13719."""

    kind: Literal["rand_augment"] = "rand_augment"
    num_ops: Annotated[int, Field(ge=1, le=16)] = 2
    """Number of operations on each picture."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of all of them, from 0 to 30."""

    @property
    def num_draws(self) -> int:
        return 2 * self.num_ops

    def apply(self, pictures: Pictures, draws: Draws) -> None:
        colours.change(pictures, draws, lambda image, numbers: colours.rand_augmented(image, self.magnitude, numbers))


class TrivialAugment(Section):
    """One operation out of fourteen, of random strength: TrivialAugment Wide, arXiv:2103.10158."""

    kind: Literal["trivial_augment"] = "trivial_augment"

    num_draws: ClassVar[int] = 3

    def apply(self, pictures: Pictures, draws: Draws) -> None:
        colours.change(pictures, draws, colours.trivially_augmented)


Augmentation: TypeAlias = Annotated[
    Crop | ResizedCrop | Flip | ColorJitter | RandAugment | TrivialAugment | Erasing, Field(discriminator="kind")
]


def wrong(augment: object) -> str:
    """Return what is wrong with what somebody gives as a sequence of `Augmentation`, in words; "" where nothing is."""
    hint = "give a list of mlspark.pictures.augment's, such as [ResizedCrop(), Flip()]"
    if not isinstance(augment, list | tuple):
        return f"is {augment!r}; {hint}"
    kinds = get_args(get_args(Augmentation)[0])
    return next((f"has {entry!r}; {hint}" for entry in augment if not isinstance(entry, kinds)), "")


@lru_cache(maxsize=16)
def _masks_of_moved(padding: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return (2 padding + 1, 2 padding + 1, height, width): 255 where a picture moved so far down and across has pixels."""
    inside = np.pad(np.full((height, width), 255, np.uint8), padding)
    return np.lib.stride_tricks.sliding_window_view(inside, (height, width))


def _mirrored(pictures: Pictures) -> Pictures:
    """Return pictures, contiguous ones, with left and right exchanged.

    By words of up to eight pixels whose order is reversed, and their bytes with it: two to four times as fast as by pixels.
    """
    word = next(size for size in (8, 4, 2, 1) if pictures.shape[3] % size == 0)
    return pictures.view(f">u{word}")[..., ::-1].astype(f"<u{word}").view(np.uint8)


def _refuse_backwards(**bounds: tuple[float, float]) -> None:
    for name, (least, greatest) in bounds.items():
        if least > greatest:
            raise ValueError(f"{name}: {least} is above {greatest}; give the least first")
