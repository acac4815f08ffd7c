"""Read an image and make sure that it is the one that was ingested."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from labelmill.schemas.images import Reason
from labelmill.schemas.locations import join_location
from labelmill.tasks.images.decode_image import Pixels, decode_ingested
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage


def read_ingested(path: str | os.PathLike[str], *, size: int, sha256: str | None) -> bytes:
    """Return the content of an image; `size` in bytes and `sha256` are those of the ingest, which may know no sha256.

    Raises RejectedImage as `read_bytes` does, with reason `changed` when the content is another.
    """
    changed = RejectedImage(Reason.CHANGED, "content differs from what was ingested; ingest again")
    try:
        data = read_bytes(path, max_bytes=size)
    except RejectedImage as rejected:
        if rejected.reason is Reason.TOO_MANY_BYTES:  # more than were ingested
            raise changed from rejected
        raise
    same = len(data) == size if sha256 is None else hashlib.sha256(data).hexdigest() == sha256
    if not same:
        raise changed
    return data


def read_pixels(row: Mapping[str, Any], root: str, *, max_pixels: int) -> Pixels:
    """Return an image of an images table, whose split lies in `root`, as (H, W, 3) uint8.

    `row` has uri, width, height, format, mode, bytes and sha256. Raises RejectedImage when the image is not as it was
    ingested, cannot be decoded, or has more than `max_pixels`.
    """
    if row["width"] is not None and row["width"] * row["height"] > max_pixels:
        raise RejectedImage(Reason.TOO_MANY_PIXELS, f"more than {max_pixels} pixels")
    data = read_ingested(join_location(root, row["uri"]), size=row["bytes"], sha256=row["sha256"])
    return decode_ingested(data, format=row["format"], mode=row["mode"], max_pixels=max_pixels)
