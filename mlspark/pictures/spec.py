"""What a picture becomes for a model: colour mode, size, how it is resized, how it is stored. Runs anywhere."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol, TypeAlias

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
"""Colour mode, as Pillow calls it -> channels of the tensor."""

Mode: TypeAlias = Literal["L", "RGB", "RGBA"]
Resize: TypeAlias = Literal["exact", "crop", "pad"]
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Store: TypeAlias = Literal["encoded", "pixels"]

MAX_SIDE = 8192
"""Most pixels of a side of a tensor."""


class Declared(Protocol):
    """What people say of pictures, as a feature or as an argument of `mlspark.streaming.open`."""

    @property
    def mode(self) -> Mode: ...
    @property
    def size(self) -> int | tuple[int, int]:
        """Height and width in pixels; one number: both."""
        ...

    @property
    def resize(self) -> Resize: ...
    @property
    def interpolation(self) -> Interpolation: ...
    @property
    def orientation(self) -> bool: ...


def is_size(size: object) -> bool:
    """Return whether something is a size as `Declared` has it: one or two whole numbers, 1 to `MAX_SIDE`."""
    sides = (size, size) if not isinstance(size, list | tuple) else tuple(size)
    return len(sides) == 2 and all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides)


@dataclass(frozen=True)
class PictureSpec:
    """How the pictures of a column become tensors (C, height, width) of uint8; the same wherever it is done."""

    mode: Mode
    """Colour mode: grey, colours, colours with transparency."""
    height: int
    """Rows of the tensor, in pixels."""
    width: int
    """Columns of the tensor, in pixels."""
    resize: Resize = "exact"
    """exact: both sides, whatever the ratio; crop: the picture covers the size, its centre is cut out; pad: it fits into the
    size, centred on zeros."""
    interpolation: Interpolation = "bilinear"
    """Interpolation of the resize, as Pillow computes it: over all pixels that fall into one (antialias)."""
    orientation: bool = True
    """Whether the orientation in EXIF is applied."""
    store: Store = "encoded"
    """What the feature table holds: the file as it came, or the tensor's bytes."""
    mean: tuple[float, ...] = ()
    """Mean of each channel over the training rows, of values / 255; empty: not normalised."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel over the training rows, of values / 255."""
    decoder: str = ""
    """`decoder.version()` when it was fitted."""

    @classmethod
    def of(cls, declared: Declared, *, store: Store) -> "PictureSpec":
        """Return what pictures become that were declared so, and are stored so."""
        height, width = (declared.size, declared.size) if isinstance(declared.size, int) else declared.size
        return cls(
            mode=declared.mode,
            height=height,
            width=width,
            resize=declared.resize,
            interpolation=declared.interpolation,
            orientation=declared.orientation,
            store=store,
        )

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
