"""The boxes of a dataset: one row for every annotation of a source, whatever is wrong with it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field


class BoxFlag(StrEnum):
    """What is odd about a box. All but `crosses_edge` make it not `valid`; it stays in the table."""

    MALFORMED = "malformed"  # no four numbers
    NOT_FINITE = "not_finite"
    NEGATIVE_SIZE = "negative_size"
    ZERO_SIZE = "zero_size"
    OUTSIDE = "outside"  # no pixel of the image lies in it
    CROSSES_EDGE = "crosses_edge"
    NO_IMAGE_SIZE = "no_image_size"  # relative to an image whose size is not known
    UNKNOWN_IMAGE = "unknown_image"
    AMBIGUOUS_IMAGE = "ambiguous_image"  # images of different names have its image's id
    UNKNOWN_CATEGORY = "unknown_category"
    REPEATED_ID = "repeated_id"  # an earlier one of the split has its id; valid all the same


HARMLESS_FLAGS = frozenset({BoxFlag.CROSSES_EDGE, BoxFlag.REPEATED_ID})

EDGE_TOLERANCE_PX = 0.5
"""How far a box may reach over its image's edge without a flag: annotation tools round."""

BoxFormat = Literal["coco", "yolo", "voc"]

BOXES_SCHEMA = pa.schema(
    [
        pa.field("box_id", pa.int64(), nullable=False),  # 0…n−1 in the split, in the order of the source
        pa.field("image_id", pa.string()),  # of the images table; null for unknown_image and ambiguous_image
        pa.field("split", pa.string(), nullable=False),
        pa.field("x1", pa.float64()),  # pixels of the image as stored, from its left edge; null when not known
        pa.field("y1", pa.float64()),
        pa.field("x2", pa.float64()),
        pa.field("y2", pa.float64()),
        pa.field("class_id", pa.int32()),  # in metadata["classes"], the images table's; null for unknown_category
        pa.field("category_id", pa.int64()),  # as in the source
        pa.field("area", pa.float64()),  # as in the source, in square pixels
        pa.field("iscrowd", pa.bool_()),
        pa.field("difficult", pa.bool_()),
        pa.field("segmentation", pa.string()),  # JSON: polygons or RLE, as in the source
        pa.field("valid", pa.bool_(), nullable=False),  # no flag but harmless ones
        pa.field("flags", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        # The numbers of the source: what xyxy were computed from, so that they can be written back as they were.
        pa.field("source_box", pa.list_(pa.field("element", pa.float64(), nullable=False))),
        pa.field("source_id", pa.int64()),
        pa.field("source_image_id", pa.int64()),
        pa.field("extra", pa.string()),  # JSON object: what the source says besides, and what fits no column
    ]
)

IMAGE_ENTRIES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source_id", pa.int64()),
        pa.field("file_name", pa.string()),
        pa.field("width", pa.int64()),  # as the source says, which the file may not bear out
        pa.field("height", pa.int64()),
        pa.field("extra", pa.string()),  # JSON object: licence, URLs, … and what fits no column
    ]
)
"""One row for every image that an annotation file lists, in its order, also for two of one file."""


class SplitSource(BaseModel):
    """What a split's boxes came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: BoxFormat
    digest: str = Field(description="hex sha256 of the annotations")
    header: str = Field("{}", description="JSON: what the file says besides images and boxes: categories, …")
    categories: tuple[tuple[int | str, int], ...] = Field(description="category as in the source, class id")
    entries: tuple[str, ...] | None = Field(
        None,
        description="parts of image_entries with what the source says of these images; None before they were noted",
    )


class BoxesMetadata(BaseModel):
    """What the columns of a boxes version mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["boxes"] = "boxes"
    box: Literal["xyxy, pixels, x to the right, y down, x2 and y2 exclusive"] = (
        "xyxy, pixels, x to the right, y down, x2 and y2 exclusive"
    )
    classes: dict[str, Any] | None = Field(description="the class list of the images table")
    splits: dict[str, SplitSource]
