"""Write a dataset as WebDataset shards: tars whose bytes depend on nothing but the images and their rows."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from labelmill.tasks.export.image_labels import BoxesByImage, find_classes, group_boxes, name_suffix
from labelmill.tasks.export.job import ExportRun, Row
from labelmill.tasks.export.place_images import PlaceImages, locate, read_image
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store.files import sync_file, temporary_beside

_BOX_COLUMNS = ("x1", "y1", "x2", "y2", "class_id", "iscrowd", "valid")


def export_webdataset(run: ExportRun, place: PlaceImages) -> None:
    """Write SPLIT-000000.tar and so on: for each image KEY.jpg (or its format), KEY.json, and KEY.cls with one label.

    A key is the image's number among those drawn. The json has image_id, size, label, labels and, where the dataset
    has boxes, boxes in pixels. A shard that is there is whole, since it appears at its end: a rerun makes the others.
    """
    for split in run.splits:
        boxes = group_boxes(run, split, _BOX_COLUMNS) if run.boxes_version else None
        for number, rows in enumerate(_cut(run, split)):
            path = run.out / f"{split}-{number:06d}.tar"
            if path.exists():
                run.exported.kept += len(rows)
            else:
                _write_shard(run, path, number * run.parameters.shard_images, rows, boxes)


def _cut(run: ExportRun, split: str) -> Iterator[list[Row]]:
    size = run.parameters.shard_images
    waiting: list[Row] = []
    for batch in run.done_images_of(split):
        waiting += batch
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


def _write_shard(run: ExportRun, path: Path, first: int, rows: Sequence[Row], boxes: BoxesByImage | None) -> None:
    with temporary_beside(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for place, row in enumerate(rows):
                check_stop()
                try:
                    image = read_image(locate(run, row), row)
                except RejectedImage as rejected:
                    run.exported.left_out[rejected.reason] += 1
                    continue
                _add_image(run, tar, f"{first + place:09d}", row, image, boxes)
                run.exported.written += 1
        sync_file(temporary)
        temporary.rename(path)


def _add_image(
    run: ExportRun, tar: tarfile.TarFile, key: str, row: Row, image: bytes, boxes: BoxesByImage | None
) -> None:
    classes = find_classes(row)
    facts = {
        "image_id": row["image_id"], "split": row["split"], "width": row["width"], "height": row["height"],
        "sha256": row["sha256"], "labels": classes, "class_names": [run.class_keys[number] for number in classes],
    }  # fmt: skip
    if boxes is not None:
        facts["boxes"] = boxes.of(row["image_id"])
        run.exported.boxes += len(facts["boxes"])
    _add(tar, f"{key}.{name_suffix(row, image)}", image)
    if len(classes) == 1:
        _add(tar, f"{key}.cls", str(classes[0]).encode())
    _add(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # of time 0, and nobody's
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
