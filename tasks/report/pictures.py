"""The pictures of a page as data URIs: photos as small JPEGs, heat maps as PNGs of one pixel a cell."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmill.schemas.parameters import FILE_BYTES_MAX, PIXELS_MAX
from labelmill.tasks.images.decode_image import decode_rgb
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.report.page_rows import PageRow

PHOTO_SIDE_PX = 440
"""Longer side of a photo on the page: sharp at twice the pixels of a card's figures."""

PHOTO_QUALITY = 80

Rgb = tuple[int, int, int]

COLOURS: tuple[Rgb, ...] = ((255, 107, 0), (0, 136, 255), (214, 38, 160), (0, 168, 107))
"""Of the leading classes by rank; tell apart on photos, in light and dark, and by most colour-blind eyes."""

OPACITY_MAX = 0.82
"""Even a sure cell lets the photo through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePhoto:
    """A photo to show: its data URI and its size in pixels on the page, or why there is none."""

    uri: str | None = None
    width: int = 4
    height: int = 3
    missing: str | None = None


def read_photo(row: PageRow) -> PagePhoto:
    """Read and shrink an image's file; what cannot be shown says why, since the maps are there all the same."""
    if row.path is None:
        return PagePhoto(missing="the store does not say where this image is")
    try:
        data = read_bytes(row.path, max_bytes=FILE_BYTES_MAX)
        if row.sha256 is not None and hashlib.sha256(data).hexdigest() != row.sha256:
            return PagePhoto(missing="the file has changed since it was ingested")
        picture = decode_rgb(data, max_pixels=PIXELS_MAX)
    except RejectedImage as rejection:
        return PagePhoto(missing=str(rejection))
    picture.thumbnail((PHOTO_SIDE_PX, PHOTO_SIDE_PX), Image.Resampling.LANCZOS)
    return PagePhoto(uri=_encode(picture, "jpeg"), width=picture.width, height=picture.height)


def draw_heat(probabilities: npt.NDArray[np.float32], colour: Rgb) -> str:
    """Return the heat map of one class: (H, W) float32 probabilities as the opacity of its colour."""
    cells = np.empty((*probabilities.shape, 4), dtype=np.uint8)
    cells[..., :3] = colour
    cells[..., 3] = _opacity(probabilities)
    return _encode(Image.fromarray(cells, "RGBA"), "png")


def draw_leaders(probabilities: npt.NDArray[np.float32], colours: Sequence[Rgb]) -> str:
    """Return who leads where: (K, H, W) float32; each cell in the colour of the likeliest of the K classes."""
    leader = probabilities.argmax(0)
    cells = np.empty((*leader.shape, 4), dtype=np.uint8)
    cells[..., :3] = np.array(colours, dtype=np.uint8)[leader]
    cells[..., 3] = _opacity(probabilities.max(0))
    return _encode(Image.fromarray(cells, "RGBA"), "png")


def _opacity(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.rint(255 * OPACITY_MAX * probabilities.clip(0, 1)).astype(np.uint8)


def _encode(picture: Image.Image, form: str) -> str:
    data = BytesIO()
    picture.save(data, form, quality=PHOTO_QUALITY) if form == "jpeg" else picture.save(data, form)
    return f"data:image/{form};base64,{base64.b64encode(data.getvalue()).decode()}"
