"""The anchors of a dataset's boxes, how well they fit each class, and what they learn of boxes of each size."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

Resize = Literal["stretch", "letterbox"]
"""How an image becomes the input: both sides to the input's, or both by one factor with bars beside."""

RATIO_LIMIT = 4.0
"""Matched by ratio, as by yolov5 (anchor_t), a box is learned when its sides are within this factor of an anchor's."""

ANCHORS_SCHEMA = pa.schema(
    [
        pa.field("k", pa.int32(), nullable=False),  # anchors in the set
        pa.field("source", pa.string(), nullable=False),  # clustered, or given to compare with
        pa.field("anchor", pa.int32(), nullable=False),  # 0…k−1 by area
        pa.field("w", pa.float64(), nullable=False),  # pixels of the input
        pa.field("h", pa.float64(), nullable=False),
        pa.field("w_relative", pa.float64(), nullable=False),  # of the input's width
        pa.field("h_relative", pa.float64(), nullable=False),
        pa.field("stride_px", pa.int32()),  # null where the set is not split, or cannot be split evenly
        pa.field("boxes", pa.int64(), nullable=False),  # that this anchor overlaps more than any other does
        pa.field("cluster_iou", pa.float64()),  # their mean IoU with it; null where there are none
        pa.field("mean_iou", pa.float64(), nullable=False),  # of all boxes with their best anchor of the set
        pa.field("best_possible_recall", pa.float64(), nullable=False),  # share of boxes within RATIO_LIMIT
        pa.field(
            "fitness", pa.float64(), nullable=False
        ),  # mean of the best side ratio, 0 beyond RATIO_LIMIT: yolov5's
        pa.field("resize", pa.string(), nullable=False),
        pa.field("input_width", pa.int32(), nullable=False),
        pa.field("input_height", pa.int32(), nullable=False),
        pa.field("boxes_version", pa.int64(), nullable=False),
    ]
)

ANCHOR_CLASSES_SCHEMA = pa.schema(
    [
        pa.field("class_id", pa.int32()),  # null for boxes without a class
        pa.field("class_name", pa.string()),
        pa.field("boxes", pa.int64(), nullable=False),
        pa.field("mean_iou", pa.float64(), nullable=False),
        pa.field("best_possible_recall", pa.float64(), nullable=False),
    ]
)
"""How well the chosen set fits each class."""

ANCHOR_POSITIVES_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # clustered or given
        pa.field("rule", pa.string(), nullable=False),  # iou or atss
        pa.field("from_px", pa.float64(), nullable=False),  # root of the box's area in the input
        pa.field("to_px", pa.float64()),  # null: no bound
        pa.field("boxes", pa.int64(), nullable=False),
        pa.field("positives", pa.int64(), nullable=False),  # anchors that learn these boxes
        pa.field("positives_a_box", pa.float64(), nullable=False),
        pa.field("without", pa.int64(), nullable=False),  # boxes that no anchor learns
    ]
)


class AnchorsMetadata(BaseModel):
    """What the rows of an anchors version were made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["anchors"] = "anchors"
    k: int = Field(description="the chosen set")
    input_size: tuple[int, int] = Field(description="height and width in pixels")
    resize: Resize
    split: str | None
    classes: tuple[int, ...] | None = Field(description="class ids, None for all")
    boxes: int = Field(description="boxes that were clustered")
    rejected: dict[str, int] = Field(description="other boxes by reason")
    ratio_limit: float = RATIO_LIMIT
