"""Find the facts of an image file in one read."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from labelmill.schemas.images import Reason, Status
from labelmill.tasks.images.decode_image import decode_header
from labelmill.tasks.images.open_image import open_image
from labelmill.tasks.images.plain_jpeg import read_plain_jpeg
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage


class ImageFacts(NamedTuple):
    """What one read of a file tells; width and height in pixels, as stored. Unknown facts are None."""

    status: Status
    reason: Reason | None = None
    detail: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    mode: str | None = None
    exif_orientation: int | None = None
    bytes: int | None = None
    sha256: str | None = None


def inspect_image(path: str | os.PathLike[str], *, max_pixels: int, max_bytes: int) -> ImageFacts:
    """Return the facts of an image file after one read, without decoding it unless its structure is suspicious.

    A file that is no usable image gives status rejected, the reason, and what was known until then.
    """
    try:
        data = read_bytes(path, max_bytes=max_bytes)
    except RejectedImage as rejection:
        return ImageFacts(status=Status.REJECTED, reason=rejection.reason, detail=rejection.detail)
    return inspect_bytes(data, max_pixels=max_pixels)


def inspect_bytes(data: bytes, *, max_pixels: int) -> ImageFacts:
    """Return the facts of an encoded image, as `inspect_image` does of a file."""
    plain = read_plain_jpeg(data)
    if plain is not None and plain.width * plain.height <= max_pixels:
        return ImageFacts(
            width=plain.width, height=plain.height, format="jpeg", mode=plain.mode,
            exif_orientation=plain.exif_orientation, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
            status=Status.DONE,
        )  # fmt: skip
    return _inspect_opened(data, max_pixels=max_pixels)


def _inspect_opened(data: bytes, *, max_pixels: int) -> ImageFacts:
    header = open_image(data, max_pixels=max_pixels)
    rejection_found = header.rejection
    if rejection_found is None and header.fault is not None:
        try:
            decode_header(header)
        except RejectedImage as rejection:
            rejection_found = rejection
    return ImageFacts(
        width=header.size[0],
        height=header.size[1],
        format=header.format,
        mode=header.mode,
        exif_orientation=header.exif_orientation,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        status=Status.DONE if rejection_found is None else Status.REJECTED,
        reason=None if rejection_found is None else rejection_found.reason,
        detail=None if rejection_found is None else rejection_found.detail,
    )
