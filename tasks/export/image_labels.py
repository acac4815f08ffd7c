"""The labels and boxes of an export's images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.errors import BadInput
from labelmill.schemas.exports import LeftOut
from labelmill.tasks.export.job import ExportRun, Row
from labelmill.tasks.images.image_structure import identify

SEPARATOR = "|"
"""What stands between several labels in a cell."""

_SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}


def find_classes(row: Row) -> list[int]:
    """Return all class ids of an image, ascending; none when it has no label."""
    if row["label"] is not None:
        return [row["label"]]
    return list(row["labels"] or ())


def name_suffix(row: Row, image: bytes) -> str:
    """Return the suffix of an image's file by its content, without dot; bin when that is no image that is known."""
    form = row["format"] or identify(image) or "bin"
    return _SUFFIXES.get(form, form)


def join_names(run: ExportRun, classes: Sequence[int]) -> str:
    """Return the names of classes in a cell; raise BadInput when one has the separator in it."""
    names = [run.class_keys[number] for number in classes]
    if len(names) > 1 and (odd := next((name for name in names if SEPARATOR in name), None)):
        raise BadInput(f"format: class {odd!r} has {SEPARATOR!r} in its name, which stands between several labels")
    return SEPARATOR.join(names)


@dataclass(frozen=True, slots=True)
class BoxesByImage:
    """The boxes of a split by image: those of the image at a place are a stretch of `rows`."""

    rows: pa.Table
    places: dict[str, int]
    starts: np.ndarray[Any, np.dtype[np.int64]]

    def of(self, image_id: str) -> list[Row]:
        """Return an image's boxes in order."""
        place = self.places[image_id]
        start, end = self.starts[place], self.starts[place + 1]
        found: list[Row] = self.rows.slice(start, end - start).to_pylist()
        return found


def group_boxes(run: ExportRun, split: str, columns: Sequence[str]) -> BoxesByImage:
    """Read some columns of a split's boxes into memory, by image; boxes of no image are counted as left out."""
    known = run.images.read(run.images_version, ["image_id", "split"])
    ids = known.filter(pc.equal(known["split"], split))["image_id"].combine_chunks()
    tables, found = [], []
    for rows in _read_boxes(run, split, ["image_id", *columns]):
        place = pc.index_in(rows["image_id"], value_set=ids).combine_chunks()
        run.exported.boxes_left_out[LeftOut.BOX_OF_NO_IMAGE] += place.null_count
        tables.append(rows.filter(place.is_valid()).drop_columns(["image_id"]))
        found.append(place.drop_null().to_numpy())
    run.exported.boxes_left_out += type(run.exported.boxes_left_out)()  # without zeros
    places = np.concatenate(found) if found else np.empty(0, np.int64)
    order = np.argsort(places, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=len(ids)))])
    rows = pa.concat_tables(tables).take(pa.array(order)).combine_chunks() if tables else pa.table({})
    return BoxesByImage(rows, {image_id: place for place, image_id in enumerate(ids.to_pylist())}, starts)


def _read_boxes(run: ExportRun, split: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    for rows in run.boxes_of(split, columns):
        if len(rows):
            yield rows
