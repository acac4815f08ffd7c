"""Turn the annotations of a COCO file into boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from labelmill.tasks.boxes.build_boxes import UNKNOWN_IMAGE, RawBoxes
from labelmill.tasks.boxes.coco_file import CocoFile, Int64s, stream_annotations
from labelmill.tasks.boxes.plain_json import (
    NO_OBJECT,
    dump_json,
    dump_rest,
    key_of,
    take_bool,
    take_box,
    take_float,
    take_int,
)

_USUAL_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}
_NUMBERS = {"id": pa.int64(), "image_id": pa.int64(), "category_id": pa.int64(), "area": pa.float64()}


class _Places:
    """Find what ids stand for: of whole numbers many at once."""

    def __init__(self, known: Mapping[int | str, int]) -> None:
        self.known = known
        numbers = sorted(key for key in known if isinstance(key, int) and -(2**63) <= key < 2**63)
        self._keys = np.array(numbers, np.int64)
        self._places = np.array([known[key] for key in numbers], np.int64)

    def find(self, ids: Int64s, otherwise: int) -> Int64s:
        """Return the place of each id."""
        if not len(self._keys):
            return np.full(len(ids), otherwise)
        at = np.minimum(np.searchsorted(self._keys, ids), len(self._keys) - 1)
        return np.where(self._keys[at] == ids, self._places[at], otherwise)


def stream_coco_boxes(
    found: CocoFile, *, image_of: Mapping[int | str, int], class_of: Mapping[int | str, int]
) -> Iterator[RawBoxes]:
    """Yield the boxes of a COCO file in batches, one box for every item of `annotations`.

    `image_of` gives an image id's place in the frames, `class_of` a category id's class. What a column cannot hold
    exactly stays in `extras`, as does an annotation that is no object, under the key NO_OBJECT.
    """
    images, classes = _Places(image_of), _Places(class_of)
    seen: set[int] = set()
    for items, plain in stream_annotations(found):
        raw = _take_usual(items, images, classes) if plain else None
        if raw is None:
            raw = RawBoxes()
            for item in items:
                _add(raw, item if isinstance(item, dict) else {NO_OBJECT: item}, images, classes, plain=plain)
        if found.repeated_ids:
            raw.repeated = [_is_again(source_id, found.repeated_ids, seen) for source_id in _as_list(raw.source_ids)]
        yield raw


def _as_list(values: Any) -> list[int | None]:  # noqa: ANN401 - a list or an Arrow array
    listed: list[int | None] = values.to_pylist() if isinstance(values, pa.Array) else values
    return listed


def _is_again(source_id: int | None, repeated: frozenset[int], seen: set[int]) -> bool:
    if source_id is None or source_id not in repeated:
        return False
    again = source_id in seen
    seen.add(source_id)
    return again


def _take_usual(items: list[Any], images: _Places, classes: _Places) -> RawBoxes | None:
    """Return boxes whose annotations all have the usual keys and kinds of values, else None; six times as fast."""
    try:
        if not all(item.keys() == _USUAL_KEYS for item in items):
            return None
        columns = {name: [item[name] for item in items] for name in (*_NUMBERS, "iscrowd", "bbox")}
        if not _are_usual(columns):
            return None
        numbers = {name: pa.array(columns[name], kind) for name, kind in _NUMBERS.items()}
        boxes = pa.array(columns["bbox"], pa.list_(pa.float64(), 4))
    except (AttributeError, TypeError, pa.ArrowException):
        return None
    xywh = boxes.flatten().to_numpy().reshape(-1, 4)
    class_ids = classes.find(numbers["category_id"].to_numpy(), -1)
    return RawBoxes(
        images=images.find(numbers["image_id"].to_numpy(), UNKNOWN_IMAGE),
        class_ids=pa.array(class_ids, mask=class_ids < 0).cast(pa.int32()),
        category_ids=numbers["category_id"],
        xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        areas=numbers["area"],
        crowds=pa.array(columns["iscrowd"], pa.int8()).cast(pa.bool_()),
        segmentations=_join_segmentations([item["segmentation"] for item in items]),
        source_boxes=xywh,
        source_ids=numbers["id"],
        source_image_ids=numbers["image_id"],
    )


def _are_usual(columns: dict[str, list[Any]]) -> bool:
    """Tell whether the values have the kinds that Arrow takes as they are: it would also take 1.5 for 1."""
    whole = {type(value) for name in ("id", "image_id", "category_id", "iscrowd") for value in columns[name]}
    numbers = {*map(type, chain.from_iterable(columns["bbox"])), *map(type, columns["area"])}
    return whole <= {int} and numbers <= {int, float} and set(columns["iscrowd"]) <= {0, 1}


def _add(raw: RawBoxes, item: dict[str, Any], images: _Places, classes: _Places, *, plain: bool) -> None:
    image, category = key_of(item.get("image_id")), key_of(item.get("category_id"))
    raw.images.append(UNKNOWN_IMAGE if image is None else images.known.get(image, UNKNOWN_IMAGE))
    raw.class_ids.append(None if category is None else classes.known.get(category))
    box = take_box(item, "bbox")
    raw.source_boxes.append(box)
    raw.xyxy.append(None if box is None else (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    raw.category_ids.append(take_int(item, "category_id"))
    raw.areas.append(take_float(item, "area"))
    raw.crowds.append(take_bool(item, "iscrowd"))
    has_shape = "segmentation" in item
    raw.segmentations.append(_dump_segmentation(item.pop("segmentation"), plain=plain) if has_shape else None)
    raw.source_ids.append(take_int(item, "id"))
    raw.source_image_ids.append(take_int(item, "image_id"))
    raw.extras.append(dump_rest(item, plain=plain))


def _join_segmentations(values: list[Any]) -> pa.Array:
    texts = [value if type(value) is bytes else dump_json(value, plain=True).encode() for value in values]
    return pa.array(texts, pa.binary()).cast(pa.string())


def _dump_segmentation(value: object, *, plain: bool) -> str:
    return value.decode() if isinstance(value, bytes) else dump_json(value, plain=plain)
