"""Turn the annotations of a COCO file into boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labelmill.tasks.boxes.build_boxes import UNKNOWN_IMAGE, RawBoxes
from labelmill.tasks.boxes.coco_file import CocoFile, stream_annotations
from labelmill.tasks.boxes.plain_json import (
    dump_json,
    dump_rest,
    key_of,
    take_bool,
    take_box,
    take_float,
    take_int,
)


def stream_coco_boxes(
    found: CocoFile, *, image_of: Mapping[int | str, int], class_of: Mapping[int | str, int]
) -> Iterator[RawBoxes]:
    """Yield the boxes of a COCO file in batches, one box for every item of `annotations`.

    `image_of` gives an image id's place in the frames, `class_of` a category id's class. What a column cannot hold
    exactly stays in `extras`, as does an annotation that is no object, under the key "".
    """
    seen: set[int] = set()
    for items, plain in stream_annotations(found):
        raw = RawBoxes()
        for item in items:
            _add(raw, item if isinstance(item, dict) else {"": item}, image_of, class_of, plain=plain)
        for source_id in raw.source_ids:
            is_repeated = source_id in found.repeated_ids
            raw.repeated.append(is_repeated and source_id in seen)
            if is_repeated and source_id is not None:
                seen.add(source_id)
        yield raw


def _add(
    raw: RawBoxes,
    item: dict[str, Any],
    image_of: Mapping[int | str, int],
    class_of: Mapping[int | str, int],
    *,
    plain: bool,
) -> None:
    image, category = key_of(item.get("image_id")), key_of(item.get("category_id"))
    raw.images.append(UNKNOWN_IMAGE if image is None else image_of.get(image, UNKNOWN_IMAGE))
    raw.class_ids.append(None if category is None else class_of.get(category))
    box = take_box(item, "bbox")
    raw.source_boxes.append(box)
    raw.xyxy.append(None if box is None else (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    raw.category_ids.append(take_int(item, "category_id"))
    raw.areas.append(take_float(item, "area"))
    raw.crowds.append(take_bool(item, "iscrowd"))
    raw.difficult.append(None)
    raw.segmentations.append(dump_json(item.pop("segmentation"), plain=plain) if "segmentation" in item else None)
    raw.source_ids.append(take_int(item, "id"))
    raw.source_image_ids.append(take_int(item, "image_id"))
    raw.extras.append(dump_rest(item, plain=plain))
