"""Stored pictures into the tensor of a batch: decoded, cropped, augmented. Runs anywhere, in threads side by side."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import ConfigError, PictureError
from mlspark.pictures import colours, decoder, turning
from mlspark.pictures.augment import (
    Augmentation,
    ColorJitter,
    Draws,
    Pictures,
    RandAugment,
    ResizedCrop,
    TrivialAugment,
)
from mlspark.pictures.spec import PictureSpec

_Colours = ColorJitter | RandAugment | TrivialAugment


class UnreadablePicture(Exception):
    """One of the pictures that a batch is filled with cannot be read."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(number, why)
        self.number, self.why = number, why


@dataclass(frozen=True)
class Filling:
    """How stored pictures of one column become those of a batch."""

    spec: PictureSpec
    augment: tuple[Augmentation, ...] = ()
    """What is done to them at random, in order."""

    @property
    def counts(self) -> list[int]:
        """Random numbers of a picture for each of `augment`."""
        return [augmentation.num_draws for augmentation in self.augment]

    @property
    def changes_colours(self) -> bool:
        """Whether some of `augment` is done by operations on colours, which take the pictures one by one."""
        return any(isinstance(augmentation, _Colours) for augmentation in self.augment)

    def load(self) -> None:
        """Import what `fill` needs, so that it takes no time later.

        Raises:
            ConfigError: some of it is not installed.
        """
        decoder.load()
        if any(isinstance(augmentation, ResizedCrop) for augmentation in self.augment):
            importlib.import_module("torch.nn.functional")
        if self.changes_colours:
            colours.load()

    def check(self, name: str) -> None:
        """Raise ConfigError where `augment` does not fit the pictures; `name` says in the message whose it is."""
        for place, augmentation in enumerate(self.augment):
            if place and isinstance(augmentation, ResizedCrop):
                raise ConfigError(
                    f"{name}: resized_crop is number {place + 1}; it takes the place of the resize: put it first"
                )
            if self.spec.mode == "RGBA" and isinstance(augmentation, _Colours):
                raise ConfigError(
                    f"{name}: {augmentation.kind} changes pictures of mode L and RGB, not RGBA; leave it out, or "
                    f"give the pictures another mode"
                )

    def fill(self, pictures: Pictures, values: Sequence[Any], draws: Sequence[Draws]) -> None:
        """Write stored values into `pictures` (n, C, H, W), changed by the random numbers of each of `augment`.

        Raises:
            UnreadablePicture: a value is no picture; holds its number among `values`.
        """
        crop = self.augment[0] if self.augment and isinstance(self.augment[0], ResizedCrop) else None
        number = 0
        try:
            if crop is not None and self.spec.store == "encoded":
                sizes = np.empty((len(values), 2), np.int64)
                for number, value in enumerate(values):
                    sizes[number] = self._size(value)
                boxes = crop.boxes(sizes, draws[0]).tolist()
                for number, (value, size, box) in enumerate(zip(values, sizes.tolist(), boxes, strict=True)):
                    pictures[number] = self._part(value, size, box)
                self._change(pictures, 1, draws)
            else:
                for number, value in enumerate(values):
                    pictures[number] = decoder.from_stored(value, self.spec)
                self.change(pictures, draws)
        except PictureError as error:
            raise UnreadablePicture(number, str(error)) from error

    def change(self, pictures: Pictures, draws: Sequence[Draws]) -> None:
        """Change `pictures` (n, C, H, W) of the tensor's size, in place, by the random numbers of each of `augment`."""
        if not self.augment or not isinstance(self.augment[0], ResizedCrop):
            self._change(pictures, 0, draws)
            return
        sizes = np.full((len(pictures), 2), pictures.shape[2:], np.int64)
        boxes = self.augment[0].boxes(sizes, draws[0]).tolist()
        for picture, (top, left, high, wide) in zip(pictures, boxes, strict=True):
            part = picture[:, top : top + high, left : left + wide]
            picture[...] = _resized(part.transpose(1, 2, 0), self.spec)
        self._change(pictures, 1, draws)

    def _change(self, pictures: Pictures, first: int, draws: Sequence[Draws]) -> None:
        for augmentation, numbers in zip(self.augment[first:], draws[first:], strict=True):
            assert not isinstance(augmentation, ResizedCrop)
            augmentation.apply(pictures, numbers)

    def _size(self, data: Any) -> tuple[int, int]:
        """Return height and width of a picture as it is to be seen."""
        header = decoder.probe(data)
        is_turned = self.spec.orientation and header.orientation in turning.EXCHANGED
        return (header.width, header.height) if is_turned else (header.height, header.width)

    def _part(self, data: Any, size: Sequence[int], box: Sequence[int]) -> NDArray[np.uint8]:
        """Return a part of a picture of this size, in the size of the tensor (C, H, W)."""
        spec, (height, width), (top, left, high, wide) = self.spec, size, box
        # Of what is decoded the part has twice the sides of the tensor, where the picture has: its edges are whole pixels.
        at_least = -(-2 * spec.height * height // high), -(-2 * spec.width * width // wide)
        pixels = decoder.decode(data, spec.mode, orientation=spec.orientation, at_least=at_least)
        down, across = pixels.shape[0] / height, pixels.shape[1] / width
        first_row, first_column = round(top * down), round(left * across)
        last_row = max(first_row + 1, round((top + high) * down))
        last_column = max(first_column + 1, round((left + wide) * across))
        return _resized(pixels[first_row:last_row, first_column:last_column], spec)


def _resized(pixels: NDArray[np.uint8], spec: PictureSpec) -> NDArray[np.uint8]:
    """Return pixels (H, W, C) in the size of the tensor, (C, H, W).

    By torch where it has the interpolation: it is three times as fast as Pillow, from which it differs by 1, bicubic by 2,
    in one value of a hundred. It computes in whole numbers, so that the bits do not depend on threads.
    """
    if spec.interpolation in ("bilinear", "bicubic"):
        from torch import from_numpy
        from torch.nn.functional import interpolate

        num_channels = pixels.shape[2]
        if num_channels == 1:
            pixels = np.repeat(pixels, 3, axis=2)  # of one channel it computes seven times as long
        # Contiguous: else torch copies it, with all its threads.
        batch = from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        size = spec.height, spec.width
        resized: NDArray[np.uint8] = interpolate(batch, size, mode=spec.interpolation, antialias=True)[0].numpy()
        return resized[:num_channels]
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if spec.mode == "L" else pixels)
    how = Image.Resampling[spec.interpolation.upper()]
    values = np.asarray(image.resize((spec.width, spec.height), how))
    return values[np.newaxis] if spec.mode == "L" else values.transpose(2, 0, 1)


def check_augment(pictures: Mapping[str, PictureSpec], augment: Mapping[str, Sequence[Augmentation]]) -> None:
    """Raise ConfigError where what is done to pictures at random names none of `pictures`, or does not fit them."""
    for name, augmentations in augment.items():
        picture = pictures.get(name)
        if picture is None:
            known = f"there are {', '.join(pictures)}" if pictures else "there are none"
            raise ConfigError(f"training.augment names {name}, which is no feature of pictures; {known}")
        Filling(picture, tuple(augmentations)).check(f"training.augment.{name}")
