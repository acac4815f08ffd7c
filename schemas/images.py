"""The images table: one row for every input item, done or rejected with a reason."""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa


class Status(StrEnum):
    """What became of an item; a rejected one has a reason."""

    DONE = "done"
    REJECTED = "rejected"


class Reason(StrEnum):
    """Machine-readable reasons of a rejected image, the same in every table."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_BYTES = "too_many_bytes"
    ANIMATED = "animated"
    BROKEN_LINK = "broken_link"
    NOT_A_FILE = "not_a_file"
    BAD_NAME = "bad_name"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    NO_LABEL = "no_label"
    CHANGED = "changed"
    NOT_FINITE = "not_finite"
    DROPPED = "dropped"


TRANSIENT_REASONS = frozenset({Reason.MISSING, Reason.UNREADABLE})
"""Reasons that lie in the machine, not in the image: a rerun tries these images again."""

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # path below the dataset's root, '/' between folders
        pa.field("split", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),  # relative to metadata["roots"][split]
        pa.field("width", pa.int32()),  # pixels as stored in the file, EXIF orientation not applied
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),  # by content, lower case: jpeg, png, webp, …; never by file name
        pa.field("mode", pa.string()),  # Pillow's mode of the stored pixels: RGB, L, CMYK, P, I;16, …
        pa.field("exif_orientation", pa.int8()),  # 1…8, null when absent
        pa.field("bytes", pa.int64()),
        pa.field("mtime_ns", pa.int64()),  # nanoseconds since the epoch; a rerun reads only what changed
        pa.field("sha256", pa.string()),  # of the file's bytes, hex
        pa.field("label", pa.int32()),  # id in metadata["classes"], null when unlabelled
        # all of an image's classes, ascending; null where a source gives one
        pa.field("labels", pa.list_(pa.field("element", pa.int32()))),
        pa.field("wnid", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # a value of Reason
        pa.field("detail", pa.string()),  # the reason in words, for people
    ]
)
