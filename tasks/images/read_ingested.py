"""Read an image and make sure that it is the one that was ingested."""

from __future__ import annotations

import hashlib
import os

from labelmill.schemas.images import Reason
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
