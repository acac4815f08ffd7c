"""Read an image that is an object of S3 or GCS."""

from __future__ import annotations

from labelmill.schemas.images import Reason
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.objects.client import find_object, get_object

FIRST_READ_BYTES = 16 * 2**20
"""Nearly every image is smaller and costs one request; of a larger object the size is asked before the rest."""


def read_object(url: str, *, max_bytes: int) -> bytes:
    """Return the content of an object, of which no more than FIRST_READ_BYTES are read when it is too large.

    Raises RejectedImage: missing, unreadable (no permission) or too_many_bytes; WorkFailed when the store gives no
    answer.
    """
    too_many = RejectedImage(Reason.TOO_MANY_BYTES, f"more than {max_bytes} bytes")
    limit = max_bytes + 1
    try:
        data = get_object(url, end=min(limit, FIRST_READ_BYTES))
        if FIRST_READ_BYTES <= len(data) < limit:
            found = find_object(url)
            if found is not None and found.size > max_bytes:
                raise too_many
            data = get_object(url, end=limit)  # anew: the first piece may be of an object replaced since
    except FileNotFoundError as error:
        raise RejectedImage(Reason.MISSING, error.strerror or str(error)) from error
    except PermissionError as error:
        raise RejectedImage(Reason.UNREADABLE, error.strerror or str(error)) from error
    if len(data) >= limit:
        raise too_many
    return data
