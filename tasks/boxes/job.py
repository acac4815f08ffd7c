"""An ingest of boxes, whatever their format: what a source gives, and the tables made of it once the images are in."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.boxes import BOXES_SCHEMA, IMAGE_ENTRIES_SCHEMA, BoxesMetadata, BoxFormat, SplitSource
from labelmill.schemas.classes import read_classes
from labelmill.schemas.parameters import IngestBoxesParameters
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.boxes.build_boxes import Floats, Frames, RawBoxes, build_boxes
from labelmill.tasks.boxes.categories import find_class_ids
from labelmill.tasks.boxes.split_parts import commit_split, sum_counts, write_split
from labelmill.tasks.ingest.job import IngestRun
from labelmill.tasks.ingest.list_files import as_text
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.store import open_store

_ENTRIES_PER_PART = 500_000


class StreamBoxes(Protocol):
    """Give a source's boxes in batches, in its order."""

    def __call__(self, sizes: Floats, class_of: Mapping[int | str, int]) -> Iterator[RawBoxes]:
        """Yield boxes; `sizes` are those of the frames, `class_of` gives a category's class id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSource:
    """What is known of a source of boxes before its images are read.

    `names` are the images' paths, distinct, and a box's image is a place in them. `sizes` is (n, 2) float64, NaN
    where the source does not say; the images table then does. `categories` gives class names by category.
    """

    format: BoxFormat
    digest: str
    header: str = "{}"
    names: Sequence[str]
    sizes: Floats
    categories: Mapping[int | str, str]
    boxes: int
    stream: StreamBoxes
    entries: Callable[[Sequence[str]], pa.Table] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxesRun:
    """An ingest of boxes: its images, prepared as any ingest's, and its boxes."""

    images: IngestRun
    parameters: IngestBoxesParameters
    source: BoxSource


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBoxes:
    """A version of boxes, and what is in its parts of this split: `counts` by "boxes", "valid" and flag."""

    version: Version
    counts: Counter[str]


def write_boxes(run: BoxesRun, images: Version, *, on_done: Callable[[int], None] = lambda n: None) -> WrittenBoxes:
    """Make the boxes of a split, and what its source says of its images, versions of their tables.

    `images` is the version of the images table that holds the split. Raises WorkFailed when the source changed since
    it was read first.
    """
    parameters, source = run.parameters, run.source
    table = open_store(parameters.store).table(f"{parameters.dataset}.boxes")
    frames = Frames(image_ids=pa.array(_make_ids(run), pa.string()), sizes=_find_sizes(run, images))
    class_of = find_class_ids(source.categories, read_classes(images.metadata))
    categories = tuple((key, class_of[key]) for key in source.categories if key in class_of)
    key = _digest(run, frames, categories)
    receipts = write_split(
        table, _build(run, frames, class_of), key=key, rows=parameters.boxes_per_part, schema=BOXES_SCHEMA,
        count=_count_flags, on_done=on_done,
    )  # fmt: skip
    entries = _write_entries(run, key, frames)
    inputs = {images.table: images.number, **({entries.table: entries.number} if entries else {})}
    lineage = make_lineage(run.images.flow, parameters, inputs=inputs)
    made = SplitSource(
        format=source.format, digest=source.digest, header=source.header, categories=categories,
        entries=tuple(entries.metadata["parts"][parameters.split]) if entries else (),
    )  # fmt: skip

    def merge(before: dict[str, Any] | None) -> dict[str, Any]:
        splits = {**(before["splits"] if before else {}), parameters.split: made}
        return BoxesMetadata(classes=images.metadata["classes"], splits=splits).model_dump(mode="json")

    version = commit_split(
        table, [r.part for r in receipts], split=parameters.split, metadata=merge, schema=BOXES_SCHEMA, lineage=lineage
    )
    table.receipts.close_run(key)
    return WrittenBoxes(version=version, counts=sum_counts(receipts))


def _make_ids(run: BoxesRun) -> list[str]:
    return [run.parameters.id_prefix + as_text(name) for name in run.source.names]


def _find_sizes(run: BoxesRun, images: Version) -> Floats:
    """Return the source's sizes, where it has none those of the images table."""
    sizes = run.source.sizes.copy()
    lacking = np.isnan(sizes).any(1)
    if not lacking.any():
        return sizes
    rows = run.images.table.read(images, ["image_id", "split", "width", "height"])
    rows = rows.filter(pc.equal(rows["split"], run.parameters.split))
    places = pc.index_in(pa.array(_make_ids(run)), value_set=rows["image_id"].combine_chunks())
    for column, name in enumerate(("width", "height")):
        known = rows[name].take(places).cast(pa.float64()).to_numpy(zero_copy_only=False)
        sizes[lacking, column] = known[lacking]
    return sizes


def _digest(run: BoxesRun, frames: Frames, categories: Sequence[tuple[int | str, int]]) -> str:
    known = hashlib.sha256(np.ascontiguousarray(frames.sizes).tobytes())
    for image_id in frames.image_ids.to_pylist():
        known.update(f"{len(image_id)} {image_id}".encode())
    facts = [run.source.format, run.source.digest, run.parameters.split, run.parameters.boxes_per_part]
    return digest_json([*facts, known.hexdigest(), [list(pair) for pair in categories]])


def _build(run: BoxesRun, frames: Frames, class_of: Mapping[int | str, int]) -> Iterator[pa.Table]:
    first_id = 0
    for raw in run.source.stream(frames.sizes, class_of):
        yield build_boxes(raw, frames, split=run.parameters.split, first_id=first_id)
        first_id += len(raw)


def _count_flags(rows: pa.Table) -> dict[str, int]:
    flags = {count["values"]: count["counts"] for count in pc.list_flatten(rows["flags"]).value_counts().to_pylist()}
    return {"boxes": len(rows), "valid": int(pc.sum(rows["valid"]).as_py() or 0), **flags}


def _write_entries(run: BoxesRun, key: str, frames: Frames) -> Version | None:
    """Keep what the source says of its images; a table of formats that say nothing is not made."""
    if run.source.entries is None:
        return None
    parameters = run.parameters
    table = open_store(parameters.store).table(f"{parameters.dataset}.image_entries")
    rows = run.source.entries(frames.image_ids.to_pylist())
    split = pa.array([parameters.split] * len(rows), pa.string())
    rows = rows.add_column(1, IMAGE_ENTRIES_SCHEMA.field("split"), split).cast(IMAGE_ENTRIES_SCHEMA)
    receipts = write_split(
        table, [rows], key=key, rows=_ENTRIES_PER_PART, schema=IMAGE_ENTRIES_SCHEMA, count=lambda part: {}
    )
    version = commit_split(
        table, [r.part for r in receipts], split=parameters.split, metadata=lambda _: {"kind": "image_entries"},
        schema=IMAGE_ENTRIES_SCHEMA, lineage=make_lineage(run.images.flow, parameters),
    )  # fmt: skip
    table.receipts.close_run(key)
    return version
