"""Read the boxes that anchors are made for, in pixels of the detector's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmill.models.box_sizes import Sizes
from labelmill.models.resize_boxes import Floats, resize_boxes
from labelmill.schemas.boxes import HARMLESS_FLAGS
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.parameters import AnchorsParameters, parse_input_size
from labelmill.schemas.versions import Version
from labelmill.tasks.anchors.preflight import find_classes
from labelmill.tasks.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class InputBoxes:
    """N boxes in pixels of the input: (N, 4) xyxy, (N,) class ids (-1 for none), (N,) numbers of their images.

    `sizes` (N, 2) has the steps of float32. `rejected` counts the version's other boxes by reason. `versions` are what
    was read: first the boxes, then the tables that know the sizes of their images.
    """

    versions: tuple[Version, ...]
    xyxy: Floats
    sizes: Sizes
    class_ids: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    rejected: dict[str, int]

    def __len__(self) -> int:
        return len(self.xyxy)


def _find_versions(store: Store, parameters: AnchorsParameters) -> tuple[Version, list[Version]]:
    """Return the version of the boxes, and those of the tables that know the sizes of their images.

    Sizes come from the version of the images table that the boxes were made with (the latest when that was deleted),
    for images that are missing from what their annotations say.
    """
    boxes = store.table(f"{parameters.dataset}.boxes").version(parameters.boxes_version)
    images = store.table(f"{parameters.dataset}.images")
    try:
        sizes = [images.version(boxes.lineage.inputs.get(images.name))]
    except NotInStore:
        sizes = [images.version()]
    entries = store.table(f"{parameters.dataset}.image_entries").latest()
    return boxes, [*sizes, entries] if entries else sizes


def read_boxes(store: Store, parameters: AnchorsParameters) -> InputBoxes:
    """Read, filter and resize the boxes of a version; every other row is counted with a reason.

    Raises BadInput when no box is left.
    """
    boxes, sizes = _find_versions(store, parameters)
    rows = _query(store, boxes, sizes, parameters)
    kept = rows.filter(rows["reason"].is_null())
    corners, images = (
        np.stack([kept[name].to_numpy() for name in names], 1).astype(np.float64).reshape(-1, len(names))
        for names in (("x1", "y1", "x2", "y2"), ("width", "height"))
    )
    xyxy = resize_boxes(corners, images, input_size=parse_input_size(parameters.input_size), resize=parameters.resize)
    sides = (xyxy[:, 2:] - xyxy[:, :2]).astype(np.float32).astype(np.float64)
    named = np.full(len(kept), "", object)
    if parameters.max_side_px is not None:
        named[sides.max(1, initial=0) > parameters.max_side_px] = "too_large"
    named[sides.min(1, initial=np.inf) < parameters.min_side_px] = "too_small"
    named[(sides <= 0).any(1)] = "outside"  # of the size that its image has by now
    stays = named == ""
    counts = {row["values"]: row["counts"] for row in rows["reason"].value_counts().to_pylist() if row["values"]}
    for reason in named[~stays].tolist():
        counts[reason] = counts.get(reason, 0) + 1
    if not stays.any():
        told = ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "the table is empty"
        raise BadInput(f"{boxes.table} v{boxes.number}: no box is left to cluster: {told}")
    images_of = kept["image_id"].combine_chunks().dictionary_encode().indices
    return InputBoxes(
        versions=(boxes, *sizes), xyxy=xyxy[stays], sizes=sides[stays], rejected=dict(sorted(counts.items())),
        class_ids=kept["class_id"].to_numpy()[stays].astype(np.int64),
        images=images_of.to_numpy()[stays].astype(np.int64),
    )  # fmt: skip


def _query(store: Store, boxes: Version, sizes: list[Version], parameters: AnchorsParameters) -> pa.Table:
    """Return the boxes of the split in their order, with their images' sizes, and a reason for those to leave out."""
    known = " UNION ALL ".join(
        f"SELECT image_id, split, width, height, {rank} AS rank FROM {_view(version)} WHERE width > 0 AND height > 0"
        for rank, version in enumerate(sizes)
    )
    given: dict[str, Any] = {
        "split": parameters.split, "crowds": parameters.crowds, "classes": find_classes(parameters, boxes),
        "harmless": sorted(HARMLESS_FLAGS),
    }  # fmt: skip
    if given["classes"] is not None:
        given["classes"] = list(given["classes"])
    query = f"""
        WITH known AS ({known}), sized AS (
            SELECT image_id, split, min({{'rank': rank, 'width': width, 'height': height}}) AS s FROM known GROUP BY ALL
        )
        SELECT x1, y1, x2, y2, coalesce(class_id, -1) AS class_id, image_id, s.width AS width, s.height AS height, CASE
            WHEN NOT valid THEN list_filter(flags, lambda f: NOT list_contains($harmless, f))[1]
            WHEN iscrowd AND NOT $crowds THEN 'crowd'
            WHEN $classes IS NOT NULL AND NOT coalesce(list_contains($classes, class_id), false) THEN 'other_class'
            WHEN s IS NULL THEN 'no_image_size' END AS reason
        FROM {_view(boxes)} AS b LEFT JOIN sized USING (image_id, split)
        WHERE $split IS NULL OR b.split = $split ORDER BY b.row
    """
    with store.connect() as sql:
        return sql.execute(query, given).fetch_arrow_table()


def _view(version: Version) -> str:
    dataset, _, name = version.table.partition(".")
    return f'"{dataset}"."{name}_v{version.number}"'
