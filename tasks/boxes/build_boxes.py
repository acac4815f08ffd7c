"""Make rows of the boxes table from what any source says of its boxes, and find what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from labelmill.schemas.boxes import BOXES_SCHEMA, EDGE_TOLERANCE_PX, HARMLESS_FLAGS, BoxFlag

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Bits = np.ndarray[Any, np.dtype[np.int64]]

UNKNOWN_IMAGE = -1
AMBIGUOUS_IMAGE = -2

_BITS = {flag: 1 << place for place, flag in enumerate(BoxFlag)}
_HARMLESS_BITS = sum(_BITS[flag] for flag in HARMLESS_FLAGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """The images that boxes lie in. `sizes` is (n, 2) float64: width and height in pixels, NaN where not known."""

    image_ids: pa.Array
    sizes: Floats


@dataclass(slots=True)
class RawBoxes:
    """Boxes as a source has them, by column: each a list that grows, or an array, with one entry for each box.

    `images` are places in `Frames`, or UNKNOWN_IMAGE, AMBIGUOUS_IMAGE. `xyxy` are four pixels, None when the source
    has no four numbers. `repeated` tells that an earlier box has the same source_id. A column left empty has no values.
    """

    images: Any = field(default_factory=list)
    class_ids: Any = field(default_factory=list)
    category_ids: Any = field(default_factory=list)
    xyxy: Any = field(default_factory=list)
    areas: Any = field(default_factory=list)
    crowds: Any = field(default_factory=list)
    difficult: Any = field(default_factory=list)
    segmentations: Any = field(default_factory=list)
    source_boxes: Any = field(default_factory=list)
    source_ids: Any = field(default_factory=list)
    source_image_ids: Any = field(default_factory=list)
    extras: Any = field(default_factory=list)
    repeated: Any = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)


def build_boxes(raw: RawBoxes, frames: Frames, *, split: str, first_id: int) -> pa.Table:
    """Return rows of BOXES_SCHEMA, one for each box in order, numbered from `first_id`."""
    images = np.asarray(raw.images, np.int64)
    xyxy, lacking = _stack(raw.xyxy)
    class_ids = pa.array(raw.class_ids, pa.int32())
    bits = _find_flags(raw, xyxy, lacking, images, frames, np.asarray(class_ids.is_null()))
    columns = {
        "box_id": np.arange(first_id, first_id + len(raw)),
        "image_id": frames.image_ids.take(pa.array(images, mask=images < 0)),
        "split": pa.repeat(split, len(raw)),
        **{name: pa.array(xyxy[:, at], mask=lacking) for at, name in enumerate(("x1", "y1", "x2", "y2"))},
        "class_id": class_ids,
        "category_id": raw.category_ids,
        "area": raw.areas,
        "iscrowd": raw.crowds,
        "difficult": raw.difficult,
        "segmentation": raw.segmentations,
        "valid": (bits & ~_HARMLESS_BITS) == 0,
        "flags": _name_flags(bits),
        "source_box": _list_boxes(raw.source_boxes),
        "source_id": raw.source_ids,
        "source_image_id": raw.source_image_ids,
        "extra": raw.extras,
    }
    arrays = [_to_arrow(values, BOXES_SCHEMA.field(name).type, len(raw)) for name, values in columns.items()]
    return pa.Table.from_arrays(arrays, schema=BOXES_SCHEMA)


def _to_arrow(values: Sequence[Any] | pa.Array, kind: pa.DataType, rows: int) -> pa.Array:
    if not len(values) and rows:
        return pa.nulls(rows, kind)
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _stack(boxes: Sequence[Any] | Floats) -> tuple[Floats, Bools]:
    """Return (n, 4) float64, NaN for what is None, and which are None."""
    if isinstance(boxes, np.ndarray):
        return boxes, np.zeros(len(boxes), bool)
    stacked = np.array([(np.nan,) * 4 if box is None else box for box in boxes], np.float64).reshape(-1, 4)
    return stacked, np.array([box is None for box in boxes], bool)


def _list_boxes(boxes: Sequence[Any] | Floats) -> Sequence[Any] | pa.Array:
    if not isinstance(boxes, np.ndarray):
        return boxes
    offsets = pa.array(np.arange(0, 4 * len(boxes) + 1, 4, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(boxes.ravel()), type=BOXES_SCHEMA.field("source_box").type)


def _find_flags(raw: RawBoxes, xyxy: Floats, lacking: Bools, images: Bits, frames: Frames, classless: Bools) -> Bits:
    """Return (n,) int64 with a bit for each flag."""
    sizes = np.vstack([frames.sizes, np.full((1, 2), np.nan)])[np.where(images >= 0, images, -1)]
    with np.errstate(invalid="ignore"):  # NaN compares as False, and infinite minus infinite is NaN
        x1, y1, x2, y2 = xyxy.T
        width, height = sizes.T
        finite = np.isfinite(xyxy).all(1)
        beyond = np.stack([-x1, -y1, x2 - width, y2 - height])
        negative = finite & ((x2 < x1) | (y2 < y1))
        outside = finite & ((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
        crosses = finite & ~outside & (beyond > EDGE_TOLERANCE_PX).any(0)
    # A source whose boxes are relative has numbers, but no pixels, where an image's size is not known.
    sizeless = lacking & ~_stack(raw.source_boxes)[1]
    found = {
        BoxFlag.MALFORMED: lacking & ~sizeless,
        BoxFlag.NO_IMAGE_SIZE: sizeless,
        BoxFlag.NOT_FINITE: ~finite & ~lacking,
        BoxFlag.NEGATIVE_SIZE: negative,
        BoxFlag.ZERO_SIZE: finite & ~negative & ((x1 == x2) | (y1 == y2)),
        BoxFlag.OUTSIDE: outside,
        BoxFlag.CROSSES_EDGE: crosses,
        BoxFlag.UNKNOWN_IMAGE: images == UNKNOWN_IMAGE,
        BoxFlag.AMBIGUOUS_IMAGE: images == AMBIGUOUS_IMAGE,
        BoxFlag.UNKNOWN_CATEGORY: classless,
        BoxFlag.REPEATED_ID: np.asarray(raw.repeated if len(raw.repeated) else [False] * len(raw), bool),
    }
    bits = np.zeros(len(raw), np.int64)
    for flag, where in found.items():
        bits[where] |= _BITS[flag]
    return bits


def _name_flags(bits: Bits) -> pa.Array:
    kinds, places = np.unique(bits, return_inverse=True)
    named = [[str(flag) for flag, bit in _BITS.items() if kind & bit] for kind in kinds.tolist()]
    return pa.array(named, BOXES_SCHEMA.field("flags").type).take(pa.array(places))
