"""An export from its parameters to the rows that a format writes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.boxes import BoxesMetadata
from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.parameters import ExportParameters
from labelmill.schemas.versions import Version
from labelmill.tasks.export.out_folder import claim_folder
from labelmill.tasks.export.preflight import check_dataset
from labelmill.tasks.ingest.labels import class_key
from labelmill.tasks.shards import check_split
from labelmill.tasks.store import Table, open_store

_ROWS_AT_ONCE = 2048

_IMAGE_COLUMNS = (
    "image_id", "split", "uri", "width", "height", "format", "bytes", "mtime_ns", "sha256", "label", "labels",
    "status", "reason",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(slots=True)
class Exported:
    """What an export wrote: images by what became of them, boxes, and what it left out by reason."""

    written: int = 0
    kept: int = 0
    boxes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    boxes_left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRun:
    """A prepared export. `splits` are those to write; `selected` holds image ids where a fraction is asked for."""

    parameters: ExportParameters
    images: Table
    images_version: Version
    boxes: Table | None
    boxes_version: Version | None
    splits: tuple[str, ...]
    selected: frozenset[str] | None
    classes: ClassList | None
    out: Path
    rows: int
    exported: Exported = field(default_factory=Exported)
    on_done: Callable[[int], None] = lambda n: None

    @property
    def class_keys(self) -> tuple[str, ...]:
        """What names each class: its wnid, else its name."""
        return tuple(class_key(name) for name in self.classes.classes) if self.classes else ()

    def is_selected(self, image_id: str | None) -> bool:
        """Tell whether an image is exported; what belongs to no image is, where all images are."""
        return self.selected is None or image_id in self.selected

    def images_of(self, split: str) -> Iterator[list[Row]]:
        """Yield the selected rows of a split, in order, some at once; tell the progress."""
        for rows in _read_split(self.images, self.images_version, split, _IMAGE_COLUMNS):
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                batch = rows.slice(start, _ROWS_AT_ONCE).to_pylist()
                yield [row for row in batch if self.is_selected(row["image_id"])]
                self.on_done(len(batch))

    def done_images_of(self, split: str) -> Iterator[list[Row]]:
        """Yield what `images_of` does without rejected rows, which are counted by reason."""
        for batch in self.images_of(split):
            self.exported.left_out.update(row["reason"] for row in batch if row["status"] != Status.DONE)
            yield [row for row in batch if row["status"] == Status.DONE]

    def boxes_of(self, split: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the boxes of a split in order, in tables of bounded size."""
        if self.boxes is not None and self.boxes_version is not None:
            for rows in _read_split(self.boxes, self.boxes_version, split, columns):
                for start in range(0, len(rows), _ROWS_AT_ONCE * 8):
                    yield rows.slice(start, _ROWS_AT_ONCE * 8)

    @property
    def boxes_metadata(self) -> BoxesMetadata | None:
        """What the boxes' version says of itself."""
        if self.boxes_version is None:
            return None
        known = {name: self.boxes_version.metadata[name] for name in BoxesMetadata.model_fields}
        return BoxesMetadata.model_validate(known)


def _read_split(table: Table, version: Version, split: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    for part in version.parts:  # a part holds one split
        first = table.read_part(part, ["split"])["split"]
        if len(first) and first[0].as_py() == split:
            yield table.read_part(part, columns)


def prepare_export(parameters: ExportParameters) -> ExportRun:
    """Find what is to be written and claim the folder for it.

    Raises NotInStore for a table or version that does not exist, BadInput when there is nothing to write, the format
    needs what the dataset has not, or the folder holds something else.
    """
    images, images_version, boxes_version = check_dataset(parameters)
    boxes = open_store(parameters.store).table(f"{parameters.dataset}.boxes") if boxes_version else None
    known = images.read(images_version, ["image_id", "split", "width", "status"])
    splits = sorted(known["split"].unique().to_pylist())
    check_split(parameters.split, splits)
    wanted = tuple(splits) if parameters.split is None else (parameters.split,)
    rows = known.filter(pc.is_in(known["split"], pa.array(wanted)))
    _refuse_sizeless(parameters, rows)
    claim_folder(Path(parameters.out), _identify(parameters, images_version, boxes_version))
    return ExportRun(
        parameters=parameters, images=images, images_version=images_version, boxes=boxes, boxes_version=boxes_version,
        splits=wanted, selected=_select(known, wanted, parameters),
        classes=read_classes(images_version.metadata), out=Path(parameters.out),
        rows=len(rows),
    )  # fmt: skip


def _refuse_sizeless(parameters: ExportParameters, rows: pa.Table) -> None:
    """Raise BadInput when a format states sizes and images have none, as those that were ingested without digests."""
    if parameters.format not in ("coco", "yolo"):
        return
    lacking = pc.and_(pc.equal(rows["status"], Status.DONE), pc.is_null(rows["width"]))
    if count := pc.sum(lacking).as_py():
        raise BadInput(
            f"format: {parameters.format} states the sizes of images, which {count:,} of {parameters.dataset} lack: "
            "they were ingested without being read; ingest them again with --digests sha256"
        )


def _identify(parameters: ExportParameters, images: Version, boxes: Version | None) -> dict[str, object]:
    """Return what decides the files: an export with the same goes on in its folder."""
    asked = parameters.model_dump(
        mode="json", include={"dataset", "format", "split", "fraction", "seed", "images", "shard_images"}
    )
    return {**asked, "images_sha256": images.sha256, "boxes_sha256": boxes.sha256 if boxes else None}


def _select(known: pa.Table, splits: Sequence[str], parameters: ExportParameters) -> frozenset[str] | None:
    """Draw the same share of each split; a row's lot depends on the seed and its id alone."""
    if parameters.fraction == 1:
        return None
    chosen: set[str] = set()
    for split in splits:
        ids = known.filter(pc.equal(known["split"], split))["image_id"].to_pylist()
        lots = sorted((_draw_lot(image_id, parameters.seed), image_id) for image_id in ids)
        chosen.update(image_id for _, image_id in lots[: round(parameters.fraction * len(ids))])
    if not chosen:
        raise BadInput(f"fraction: {parameters.fraction} of {len(known)} images is none")
    return frozenset(chosen)


def _draw_lot(image_id: str, seed: int) -> bytes:
    return hashlib.blake2b(image_id.encode(), digest_size=8, key=seed.to_bytes(8)).digest()
