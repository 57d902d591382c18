"""A picture that shows nothing, as an example of what a column takes. Runs anywhere."""

import io
import math

from mlspark.pictures.media import Media

_SIDE = 32
_KINDS = {"png": "PNG", "jpeg": "JPEG", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF", "webp": "WEBP", "avif": "AVIF"}
"""Format of a contract -> Pillow's name, the most welcome first."""
_MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK")


def grey(media: Media) -> bytes:
    """Return the file of a picture that is grey all over, in a format, mode and size that `media` lets pass if it can."""
    from PIL import Image

    side = max(math.isqrt(media.min_pixels - 1) + 1, min(_SIDE, math.isqrt(media.max_pixels)))
    mode = next((mode for mode in _MODES if mode in media.modes), "L")
    kind = next(name for known, name in _KINDS.items() if known in media.formats)
    picture = Image.new("L", (side, side), 128)
    file = io.BytesIO()
    picture.convert(mode).save(file, kind)
    return file.getvalue()
