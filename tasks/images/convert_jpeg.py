"""Convert an encoded image to a JPEG that says what it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image

from labelmill.tasks.images.decode_image import Pixels, decode_array
from labelmill.tasks.images.open_image import open_image

_SEGMENT_MARKER_BYTES = 2

_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""What brings pixels (H, W, 3) upright, by EXIF orientation."""


def name_conversion(data: bytes, *, quality: int, short_side_px: int | None) -> bytes:
    """Return the text that a converted file carries: digest of the original, and the settings."""
    size = "as it was" if short_side_px is None else f"at most {short_side_px}"
    return f"labelmill: sha256 {hashlib.sha256(data).hexdigest()}, quality {quality}, short side {size}".encode()


def convert_jpeg(
    data: bytes, *, quality: int, short_side_px: int | None, max_pixels: int, comment: bytes | None = None
) -> bytes:
    """Return an image as JPEG with halved colour resolution, upright.

    A shorter side of more than `short_side_px` pixels is reduced to that, the longer one in proportion, by Lanczos'
    filter. Raises RejectedImage for what cannot be decoded.
    """
    pixels = decode_array(data, max_pixels=max_pixels)
    if b"Exif" in data or b"EXIF" in data or b"eXIf" in data:  # a JPEG made here says nothing of orientation
        turn = _UPRIGHT.get(open_image(data, max_pixels=max_pixels).exif_orientation or 1)
        pixels = pixels if turn is None else turn(pixels)
    height, width = pixels.shape[:2]
    if short_side_px is not None and min(height, width) > short_side_px:
        scale = short_side_px / min(height, width)
        size = max(short_side_px, round(width * scale)), max(short_side_px, round(height * scale))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
    return encoded if comment is None else _add_comment(encoded, comment)


def _add_comment(jpeg: bytes, comment: bytes) -> bytes:
    """Put a comment behind the first segment: a JFIF header must stay the first."""
    after = 2 * _SEGMENT_MARKER_BYTES + int.from_bytes(jpeg[4:6], "big")
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    return jpeg[:after] + segment + jpeg[after:]


COMMENT_WITHIN_BYTES = 256
"""The comment of a converted file ends before this."""
