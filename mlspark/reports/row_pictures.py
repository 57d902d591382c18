"""Pictures of single rows as a page holds them, and maps over them. Runs anywhere; needs Pillow."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.reports.pictures_section import Shown

_SIDE = 128
"""Longest side of a picture on the page; those of up to half of it are enlarged by a whole factor."""
_HEAT = np.array([255.0, 70.0, 0.0])
_STRENGTH = 0.75
"""Share of the heat's colour where a map is 1."""
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_JPEG_QUALITY = 88


def shown(pixels: NDArray[np.uint8], words: str) -> Shown:
    """Return a picture (C, H, W), C = 1, 3 or 4, as a part of a page; `words` say what it is."""
    from PIL import Image

    mode = _MODES[len(pixels)]
    picture: Any = Image.fromarray(pixels[0] if mode == "L" else np.ascontiguousarray(pixels.transpose(1, 2, 0)), mode)
    longest = max(picture.size)
    is_enlarged = longest <= _SIDE // 2
    factor = _SIDE // longest if is_enlarged else _SIDE / longest
    width, height = (max(1, round(side * factor)) for side in picture.size)
    if longest > _SIDE:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    kind, options = ("PNG", {"optimize": True})
    if longest > _SIDE // 2 and mode != "RGBA":
        kind, options = "JPEG", {"quality": _JPEG_QUALITY}  # type: ignore[dict-item]
    file = io.BytesIO()
    picture.save(file, kind, **options)
    data = base64.b64encode(file.getvalue()).decode()
    return Shown(f"data:image/{kind.lower()};base64,{data}", width, height, words, is_enlarged)


def heated(pixels: NDArray[np.uint8], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a picture (C, H, W) in grey with a map (H, W) of 0 to 1 over it in colour: (3, H, W)."""
    grey = pixels[:3].astype(np.float64).mean(axis=0)
    share = _STRENGTH * np.clip(heat, 0.0, 1.0)
    mixed = grey * (1 - share) + _HEAT[:, None, None] * share
    return np.asarray(mixed.round(), np.uint8)
