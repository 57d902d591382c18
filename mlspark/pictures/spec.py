"""What a picture becomes for a model: colour mode, size, how it is resized, how it is stored. Runs anywhere."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
"""Colour mode, as Pillow calls it -> channels of the tensor."""


@dataclass(frozen=True)
class PictureSpec:
    """How the pictures of a column become tensors (C, height, width) of uint8; the same wherever it is done."""

    mode: Literal["L", "RGB", "RGBA"]
    """Colour mode: grey, colours, colours with transparency."""
    height: int
    """Rows of the tensor, in pixels."""
    width: int
    """Columns of the tensor, in pixels."""
    resize: Literal["exact", "crop", "pad"] = "exact"
    """exact: both sides, whatever the ratio; crop: the picture covers the size, its centre is cut out; pad: it fits into the
    size, centred on zeros."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """Interpolation of the resize, as Pillow computes it: over all pixels that fall into one (antialias)."""
    orientation: bool = True
    """Whether the orientation in EXIF is applied."""
    store: Literal["encoded", "pixels"] = "encoded"
    """What the feature table holds: the file as it came, or the tensor's bytes."""
    mean: tuple[float, ...] = ()
    """Mean of each channel over the training rows, of values / 255; empty: not normalised."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel over the training rows, of values / 255."""
    decoder: str = ""
    """`decoder.version()` when it was fitted."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the tensor."""
        return CHANNELS[self.mode], self.height, self.width

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor."""
        return CHANNELS[self.mode] * self.height * self.width

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PictureSpec":
        known = {field.name for field in fields(cls)}
        lists = {name: tuple(value[name]) for name in ("mean", "std")}
        return cls(**{name: entry for name, entry in value.items() if name in known} | lists)
