"""Write a split as a COCO instances file: as it came in, where it came from one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any

from labelmill.schemas.boxes import SplitSource
from labelmill.schemas.errors import NotInStore
from labelmill.schemas.exports import LeftOut
from labelmill.schemas.images import Status
from labelmill.schemas.versions import Part
from labelmill.tasks.boxes.plain_json import NO_OBJECT, as_number
from labelmill.tasks.export.job import ExportRun, Row
from labelmill.tasks.export.out_folder import write_whole
from labelmill.tasks.export.place_images import PlaceImages
from labelmill.tasks.store import Table, open_store


def export_coco(run: ExportRun, place: PlaceImages) -> None:
    """Write annotations/instances_SPLIT.json, and the images into images/SPLIT."""
    for split in run.splits:
        metadata = run.boxes_metadata
        source = metadata.splits.get(split) if metadata else None
        path = run.out / "annotations" / f"instances_{split}.json"
        with write_whole(path) as stream:
            if source is not None and source.format == "coco":
                _write_back(run, place, split, source, stream)
            else:
                _write_anew(run, place, split, stream)


def _write(stream: IO[str], header: Mapping[str, Any], lists: Mapping[str, Iterator[str]]) -> None:
    stream.write("{")
    for key, value in header.items():
        stream.write(f"{json.dumps(key)}: {json.dumps(value)},\n")
    for number, (key, items) in enumerate(lists.items()):
        stream.write((",\n" if number else "") + f'"{key}": [')
        for place, item in enumerate(items):
            stream.write((",\n" if place else "\n") + item)
        stream.write("]")
    stream.write("}\n")


def _write_back(run: ExportRun, place: PlaceImages, split: str, source: SplitSource, stream: IO[str]) -> None:
    """Write all that the source's file said, in its order: also images without a file and boxes of no image."""
    names = {}
    entries = list(_list_entries(run, split, source))
    for entry in entries:
        if entry["file_name"] is not None:
            names[entry["image_id"]] = entry["file_name"]
    _place_all(run, place, split, names)
    images = (_join(_image_of(entry), entry["extra"]) for entry in entries)
    _write(stream, json.loads(source.header), {"images": images, "annotations": _annotations_back(run, split)})


def _place_all(run: ExportRun, place: PlaceImages, split: str, names: Mapping[str, str]) -> None:
    for batch in run.images_of(split):
        run.exported.left_out.update(row["reason"] for row in batch if row["status"] != Status.DONE)
        if run.parameters.images != "none":
            done = [row for row in batch if row["status"] == Status.DONE]
            place([(row, f"images/{split}/{names.get(row['image_id'], row['image_id'])}") for row in done])


def _list_entries(run: ExportRun, split: str, source: SplitSource) -> Iterator[Row]:
    table = open_store(run.parameters.store).table(f"{run.parameters.dataset}.image_entries")
    for part in _find_parts(table, split, source.entries):
        for entry in table.read_part(part).to_pylist():
            if run.is_selected(entry["image_id"]):
                yield entry


def _find_parts(table: Table, split: str, entries: Sequence[str] | None) -> list[Part]:
    """Return the parts of entries that belong to a version of boxes, of the latest version where it notes none."""
    if entries is None:
        latest = table.version()
        entries = latest.metadata["parts"].get(split, ())
    for number in reversed(table.numbers()):  # boxes of an older version have entries of an older one
        known = {part.path: part for part in table.version(number).parts}
        if known.keys() >= set(entries):
            return [known[path] for path in entries]
    raise NotInStore(f"{table.name}: no version has what the source of these boxes said of split {split!r}")


def _image_of(entry: Row) -> dict[str, Any]:
    known = {"id": entry["source_id"], **{name: entry[name] for name in ("file_name", "width", "height")}}
    return {name: value for name, value in known.items() if value is not None}


def _annotations_back(run: ExportRun, split: str) -> Iterator[str]:
    for rows in run.boxes_of(split):
        for row in rows.to_pylist():
            if run.is_selected(row["image_id"]):
                run.exported.boxes += 1
                yield _annotation_back(row)


def _annotation_back(row: Row) -> str:
    box, area, crowd = row["source_box"], row["area"], row["iscrowd"]
    known = {
        "id": row["source_id"],
        "image_id": row["source_image_id"],
        "category_id": row["category_id"],
        "bbox": None if box is None else [as_number(value) for value in box],
        "area": None if area is None else as_number(area),
        "iscrowd": None if crowd is None else int(crowd),
    }
    return _join({name: value for name, value in known.items() if value is not None}, row["extra"], row["segmentation"])


def _join(known: Mapping[str, Any], extra: str | None, segmentation: str | None = None) -> str:
    """Return a JSON object of known values and of texts that are JSON already."""
    if extra is not None:
        rest = json.loads(extra)
        if NO_OBJECT in rest and not known:
            return json.dumps(rest[NO_OBJECT])  # an item that was no object
    parts = [json.dumps(known)[1:-1]]
    if segmentation is not None:
        parts.append(f'"segmentation": {segmentation}')
    if extra is not None:
        parts.append(extra[1:-1])
    return "{" + ", ".join(part for part in parts if part) + "}"


def _write_anew(run: ExportRun, place: PlaceImages, split: str, stream: IO[str]) -> None:
    """Write what the tables say: ids count from 1, in their order, a class's id is one more than the store's."""
    numbers: dict[str, int] = {}
    categories = [{"id": number, "name": name} for number, name in enumerate(run.class_keys, start=1)]
    images = chain.from_iterable(_images_anew(run, place, split, numbers))
    _write(
        stream, {"categories": categories}, {"images": images, "annotations": _annotations_anew(run, split, numbers)}
    )


def _images_anew(run: ExportRun, place: PlaceImages, split: str, numbers: dict[str, int]) -> Iterator[list[str]]:
    for batch in run.done_images_of(split):
        wanted = [(row, f"images/{split}/{row['image_id']}") for row in batch]
        reasons = place(wanted) if run.parameters.images != "none" else [None] * len(batch)
        written = []
        for row, reason in zip(batch, reasons, strict=True):
            if reason is None:
                number = numbers[row["image_id"]] = len(numbers) + 1
                facts = {"id": number, "file_name": row["image_id"], "width": row["width"], "height": row["height"]}
                written.append(json.dumps(facts))
        yield written


def _annotations_anew(run: ExportRun, split: str, numbers: Mapping[str, int]) -> Iterator[str]:
    left_out = run.exported.boxes_left_out
    for rows in run.boxes_of(split):
        for row in rows.to_pylist():
            image = numbers.get(row["image_id"])
            if image is None:
                if run.is_selected(row["image_id"]):
                    left_out[LeftOut.BOX_OF_NO_IMAGE] += 1
            elif row["class_id"] is None or row["x1"] is None:
                left_out[LeftOut.INVALID_BOX] += 1
            else:
                run.exported.boxes += 1
                yield _annotation_anew(row, run.exported.boxes, image)


def _annotation_anew(row: Row, number: int, image: int) -> str:
    x1, y1, x2, y2 = (row[name] for name in ("x1", "y1", "x2", "y2"))
    box = [x1, y1, x2 - x1, y2 - y1]
    known = {
        "id": number,
        "image_id": image,
        "category_id": row["class_id"] + 1,
        "bbox": [as_number(value) for value in box],
        "area": as_number(box[2] * box[3] if row["area"] is None else row["area"]),
        "iscrowd": int(bool(row["iscrowd"])),
    }
    return _join(known, None, row["segmentation"] or "[]")
