"""The boxes of a dataset's views: computed from the records alone, no pixel is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.boxes import BOXES_SCHEMA, BoxesMetadata
from labelmill.schemas.images import Status
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.schemas.views import MosaicStep, MosaicTile, Step, parse_steps
from labelmill.tasks.augmentation.apply_view import apply_to_boxes
from labelmill.tasks.augmentation.carry_shape import carry_shape
from labelmill.tasks.augmentation.geometry import Floats, Frame
from labelmill.tasks.augmentation.job import AugmentRun, ShardReceipts, find_inputs, read_rows
from labelmill.tasks.boxes.build_boxes import Frames, RawBoxes, build_boxes
from labelmill.tasks.boxes.split_parts import sum_counts, write_split
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt

_ROWS_PER_PART = 500_000

_COLUMNS = ("image_id", "split", "x1", "y1", "x2", "y2", "class_id", "category_id", "iscrowd", "difficult")

_COLUMNS_WITH_SHAPES = (*_COLUMNS, "segmentation")


@dataclass(slots=True)
class BoxCounts:
    """What became of boxes: `carried` rows in the new table, others by why they are not in it."""

    carried: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBoxes:
    """The boxes of an image: (n, 4) float64 x1 y1 x2 y2 in pixels, and their other columns by name."""

    xyxy: Floats
    columns: dict[str, list[Any]]


class BoxesByImage:
    """A split's boxes, to be asked for by image; those without an image or without an area are counted, not kept."""

    def __init__(self, rows: pa.Table) -> None:
        xyxy = np.stack([rows[name].to_numpy(zero_copy_only=False) for name in ("x1", "y1", "x2", "y2")], axis=1)
        with np.errstate(invalid="ignore"):
            usable = np.isfinite(xyxy).all(1) & (xyxy[:, 2:] > xyxy[:, :2]).all(1)
        usable &= rows["image_id"].is_valid().to_numpy()
        self.unusable = int((~usable).sum())
        rows, xyxy = rows.filter(pa.array(usable)), xyxy[usable]
        encoded = rows["image_id"].combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")  # an image's boxes stay in the order of the source
        self._rows, self._xyxy = rows.take(pa.array(order)), xyxy[order]
        ends = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
        names = encoded.dictionary.to_pylist()
        self._spans = {name: (int(ends[at]), int(ends[at + 1])) for at, name in enumerate(names)}

    def of(self, image_id: str) -> ImageBoxes:
        """Return the boxes of an image, none for one that has none."""
        start, stop = self._spans.get(image_id, (0, 0))
        rows = self._rows.slice(start, stop - start)
        columns = {name: rows[name].to_pylist() for name in rows.column_names[6:]}
        return ImageBoxes(xyxy=self._xyxy[start:stop], columns=columns)


def commit_boxes(
    run: AugmentRun, receipts: Sequence[ShardReceipts], *, on_done: Callable[[int], None] = lambda boxes: None
) -> tuple[Version, BoxCounts] | None:
    """Make the boxes of all views a version of the new dataset's boxes; None where there are none to carry.

    `on_done(n)` is told the boxes that were carried since the last call.
    """
    if run.boxes is None or run.boxes_version is None or run.made is None:
        return None
    table = open_store(run.parameters.store).table(f"{run.parameters.into}.boxes")
    counts = BoxCounts()
    owned: dict[str, list[Receipt]] = {}
    for split in dict.fromkeys(shard.split for shard in run.shards):
        key = _key(run, split, receipts)
        batches = _carry_split(run, split, receipts, counts)
        owned[split] = write_split(
            table, batches, key=key, rows=_ROWS_PER_PART, schema=BOXES_SCHEMA,
            count=lambda part: {"carried": len(part)}, on_done=on_done,
        )  # fmt: skip
        counts.carried += sum_counts(owned[split])["carried"]
    parts = [receipt.part for found in owned.values() for receipt in found]
    metadata = BoxesMetadata(classes=run.images_version.metadata["classes"], splits={}).model_dump(mode="json")
    metadata["parts"] = {split: [receipt.part.path for receipt in found] for split, found in owned.items()}
    lineage = make_lineage("augment", run.parameters, inputs=find_inputs(run))
    version = table.replace(parts, schema=BOXES_SCHEMA, metadata=metadata, lineage=lineage)
    for split in owned:
        table.receipts.close_run(_key(run, split, receipts))
    return version, counts


def _key(run: AugmentRun, split: str, receipts: Sequence[ShardReceipts]) -> str:
    shas = [
        receipt.views.part.sha256
        for shard, receipt in zip(run.shards, receipts, strict=True)
        if shard.split == split
    ]  # fmt: skip
    boxes = run.boxes_version.sha256 if run.boxes_version else None
    return digest_json(["augment boxes 1", boxes, split, shas, run.parameters.masks, run.policy.min_visible])


def _carry_split(
    run: AugmentRun, split: str, receipts: Sequence[ShardReceipts], counts: BoxCounts
) -> Iterator[pa.Table]:
    """Yield rows of BOXES_SCHEMA for the views of a split, in their order."""
    boxes = BoxesByImage(_read_boxes(run, split))
    counts.left_out["no box of an image"] += boxes.unusable
    carrier = _Carrier(boxes, _read_sizes(run, split), run.policy.min_visible, counts)
    first_id = 0
    for shard, receipt in zip(run.shards, receipts, strict=True):
        if shard.split != split:
            continue
        views = run.views.read_part(receipt.views.part, ["image_id", "view_id", "width", "height", "steps", "status"])
        done = views.filter(pc.equal(views["status"], Status.DONE)).to_pylist()
        raw = RawBoxes()
        for place, view in enumerate(done):
            carrier.carry(parse_steps(view["steps"]), view["image_id"], raw, place)
        frames = Frames(
            image_ids=pa.array([view["view_id"] for view in done], pa.string()),
            sizes=np.array([(view["width"], view["height"]) for view in done], np.float64).reshape(-1, 2),
        )
        rows = build_boxes(raw, frames, split=split, first_id=first_id)
        first_id += len(rows)
        yield rows


def _read_boxes(run: AugmentRun, split: str) -> pa.Table:
    if run.boxes is None or run.boxes_version is None:
        raise TypeError("a run without boxes")
    columns = _COLUMNS_WITH_SHAPES if run.parameters.masks else _COLUMNS
    parts: Sequence[Part] = run.boxes_version.parts
    owned = run.boxes_version.metadata["parts"].get(split, ())
    tables = [run.boxes.read_part(part, columns) for part in parts if part.path in owned]
    return pa.concat_tables([pa.schema([BOXES_SCHEMA.field(name) for name in columns]).empty_table(), *tables])


def _read_sizes(run: AugmentRun, split: str) -> dict[str, Frame]:
    """Return (width, height) of a split's images, as their views were drawn by."""
    sizes: dict[str, Frame] = {}
    for part in dict.fromkeys(shard.part.path for shard in run.shards if shard.split == split):
        found = next(shard.part for shard in run.shards if shard.part.path == part)
        rows = read_rows(run.images, found, split)
        for name, width, height in zip(*(rows[c].to_pylist() for c in ("image_id", "width", "height")), strict=True):
            if width is not None:
                sizes[name] = (width, height)
    return sizes


class _Carrier:
    """Carries the boxes of a split's images into their views."""

    def __init__(self, boxes: BoxesByImage, sizes: dict[str, Frame], min_visible: float, counts: BoxCounts) -> None:
        self._boxes, self._sizes, self._min_visible, self._counts = boxes, sizes, min_visible, counts

    def carry(self, steps: tuple[Step, ...], image_id: str, raw: RawBoxes, place: int) -> None:
        """Add a view's boxes to `raw`, for the frame at `place`: those of each image of a mosaic."""
        tiles: Sequence[MosaicTile | None] = (None,)
        if steps and isinstance(steps[0], MosaicStep):
            tiles = steps[0].tiles
        for tile in tiles:
            own = image_id if tile is None or tile.image_id is None else tile.image_id
            found = self._boxes.of(own)
            if own in self._sizes:
                self._add(found, steps, self._sizes[own], tile, raw, place)
            else:
                self._counts.left_out["of an image of unknown size"] += len(found.xyxy)

    def _add(
        self, found: ImageBoxes, steps: Sequence[Step], size: Frame, tile: MosaicTile | None, raw: RawBoxes, place: int
    ) -> None:
        carried = apply_to_boxes(found.xyxy, steps, size=size, min_visible=self._min_visible, tile=tile)
        added = 0
        for box, at in zip(carried.xyxy.tolist(), carried.places.tolist(), strict=True):
            column = {name: values[at] for name, values in found.columns.items()}
            text = column.get("segmentation")
            shape = carry_shape(text, steps, size=size, tile=tile) if text else None
            if shape is not None and not shape[1]:  # the box is in sight, the object in it is not
                continue
            added += 1
            raw.images.append(place)
            raw.xyxy.append(tuple(box))
            raw.source_boxes.append(None)
            raw.class_ids.append(column["class_id"])
            raw.category_ids.append(column["category_id"])
            raw.crowds.append(column["iscrowd"])
            raw.difficult.append(column["difficult"])
            raw.segmentations.append(shape[0] if shape else None)
            raw.areas.append(shape[1] if shape else (box[2] - box[0]) * (box[3] - box[1]))
        self._counts.left_out["out of sight"] += len(found.xyxy) - added
