"""Write a dataset as YOLO has it: a .txt of boxes beside each image, and data.yaml."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import yaml

from labelmill.schemas.errors import BadInput
from labelmill.schemas.exports import LeftOut
from labelmill.tasks.export.image_labels import BoxesByImage, group_boxes
from labelmill.tasks.export.job import ExportRun, Row
from labelmill.tasks.export.out_folder import write_whole
from labelmill.tasks.export.place_images import PlaceImages

_COLUMNS = ("x1", "y1", "x2", "y2", "class_id", "iscrowd", "valid", "source_box", "extra")


def export_yolo(run: ExportRun, place: PlaceImages) -> None:
    """Write images/SPLIT, labels/SPLIT with `class cx cy w h` relative to the image, and data.yaml.

    Boxes are cut at the image's edge; crowds and boxes that are not valid are left out and counted. What came from
    YOLO is written with its own numbers.
    """
    metadata = run.boxes_metadata
    for split in run.splits:
        source = metadata.splits.get(split) if metadata else None
        boxes = group_boxes(run, split, _COLUMNS)
        taken: dict[str, str] = {}
        for batch in run.done_images_of(split):
            names = [f"{split}/{row['image_id']}" for row in batch]
            for row, name in zip(batch, names, strict=True):
                _refuse_shared(taken, row, _label_path(name))
            reasons = place([(row, f"images/{name}") for row, name in zip(batch, names, strict=True)])
            for row, name, reason in zip(batch, names, reasons, strict=True):
                if reason is None:
                    _write_labels(run, row, _label_path(name), boxes, is_yolo=bool(source and source.format == "yolo"))
    with write_whole(run.out / "data.yaml") as stream:
        # Without `path` the folders count from data.yaml; a relative one would, from wherever the trainer is started.
        facts = {**{split: f"images/{split}" for split in run.splits}, "nc": len(run.class_keys)}
        yaml.safe_dump({**facts, "names": list(run.class_keys)}, stream, allow_unicode=True, sort_keys=False)


def _label_path(name: str) -> str:
    return f"labels/{PurePosixPath(name).with_suffix('.txt')}"


def _refuse_shared(taken: dict[str, str], row: Row, path: str) -> None:
    other = taken.setdefault(path, row["image_id"])
    if other != row["image_id"]:
        raise BadInput(
            f"format: yolo finds boxes by an image's name without suffix, which {other!r} and {row['image_id']!r} "
            "share; rename one of them and ingest again"
        )


def _write_labels(run: ExportRun, row: Row, path: str, boxes: BoxesByImage, *, is_yolo: bool) -> None:
    with write_whole(run.out / path, durable=False) as stream:
        for box in boxes.of(row["image_id"]):
            line = _line(box, row, is_yolo=is_yolo)
            if isinstance(line, LeftOut):
                run.exported.boxes_left_out[line] += 1
            else:
                run.exported.boxes += 1
                stream.write(line + "\n")


def _line(box: Row, row: Row, *, is_yolo: bool) -> str | LeftOut:
    if not box["valid"]:
        return LeftOut.INVALID_BOX
    if box["iscrowd"]:
        return LeftOut.CROWD
    if is_yolo:
        polygon = json.loads(box["extra"]).get("polygon") if box["extra"] else None
        return " ".join(map(_text, [box["class_id"], *(polygon or box["source_box"])]))
    width, height = row["width"], row["height"]
    x1, x2 = (min(max(box[name] / width, 0.0), 1.0) for name in ("x1", "x2"))
    y1, y2 = (min(max(box[name] / height, 0.0), 1.0) for name in ("y1", "y2"))
    if x2 <= x1 or y2 <= y1:
        return LeftOut.INVALID_BOX
    return " ".join(map(_text, [box["class_id"], (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]))


def _text(value: float) -> str:
    return repr(value)  # the shortest text that reads back as the same number
