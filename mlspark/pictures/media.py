"""What a picture must be, and what is wrong with one: the same verdict wherever it is asked for. Runs anywhere."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlspark.errors import PictureError
from mlspark.pictures import decoder
from mlspark.pictures.decoder import EIGHT_BITS, MAX_PIXELS, Mode
from mlspark.pictures.headers import FORMATS, Data, Format

FORMAT, BYTES, PIXELS, FRAMES, MODE, DECODES = (
    f"media.{name}" for name in ("format", "bytes", "pixels", "frames", "mode", "decodes")
)
"""Rules that a picture may break, in the order in which they are looked at; the first one is told."""


class Media(BaseModel):
    """What every picture of a column must be. Its content tells what it is; the name of its file is not looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = FORMATS
    """Formats that are good, by their content; a picture of another one is bad."""
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = EIGHT_BITS
    """Colour modes that are good, as Pillow calls them: unless given those of up to eight bits a channel. "L;16" and the
    like have sixteen, of which the upper eight are kept."""
    min_pixels: Annotated[int, Field(ge=1)] = 1
    """Least width times height."""
    max_pixels: Annotated[int, Field(ge=1, le=MAX_PIXELS)] = 50_000_000
    """Greatest width times height, told from the header before a pixel is decoded."""
    max_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    """Most bytes of a file."""
    max_frames: Annotated[int, Field(ge=1)] = 1
    """Most pictures of an animation or pages of a TIFF; of several the first is decoded."""
    decodes: bool = True
    """Whether a picture is decoded to find out whether it can be: one that is cut off or damaged is bad. Without it only the
    header is read."""

    duplicates: Literal["ignore", "same", "alike"] = "same"
    """Which good pictures the report of a preparation counts as duplicates: none; those of the same bytes; besides them
    those that look alike, by a hash of 9 x 8 grey pixels (dHash), for which each is decoded once more. No row is refused for
    it: `unique_key` does that."""

    @model_validator(mode="after")
    def _leaves_some_size(self) -> "Media":
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels:,} is more than max_pixels {self.max_pixels:,}")
        return self


def problem(data: Data | None, media: Media) -> tuple[str, str] | None:
    """Return (rule, what is wrong with the picture in words) of the first rule that it breaks; None for a good one.

    A value that is missing breaks none of them. In bounded memory: the header is read first, and what is too large by it is
    never decoded.
    """
    if data is None:
        return None
    broken = header_problem(data, media)
    if broken is not None or not media.decodes:
        return broken
    try:
        decoder.check_decodes(data)
    except PictureError as error:
        return DECODES, str(error)
    return None


def header_problem(data: Data, media: Media) -> tuple[str, str] | None:
    """Return what `problem` does of all rules but the last, `media.decodes`: for those who decode the picture themselves."""
    size = len(data)
    if not size or size > media.max_bytes:
        return BYTES, f"{size:,} bytes, expected 1 to {media.max_bytes:,}"
    try:
        picture = decoder.probe(data)
    except PictureError as error:
        return FORMAT, str(error)
    if picture.format not in media.formats:
        return FORMAT, f"{picture.format}, expected {' or '.join(media.formats)}"
    if not media.min_pixels <= picture.num_pixels <= media.max_pixels:
        shown = f"{picture.format} of {picture.width:,} x {picture.height:,} = {picture.num_pixels:,} pixels"
        return PIXELS, f"{shown}, expected {media.min_pixels:,} to {media.max_pixels:,}"
    if max(picture.width, picture.height) > decoder.MAX_SIDE:
        shown = f"{picture.format} of {picture.width:,} x {picture.height:,}"
        return PIXELS, f"{shown}, expected no side of more than {decoder.MAX_SIDE:,} pixels"
    if picture.num_frames > media.max_frames:
        return FRAMES, f"{picture.format} with {picture.num_frames:,} pictures, expected 1 to {media.max_frames:,}"
    if picture.mode not in media.modes:
        return MODE, f"{picture.format} of mode {picture.mode}, expected {', '.join(media.modes)}"
    return None
