"""Shards: stretches of an images version that a task labels, keyed by all that decides the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from labelmill.models.teacher import Teacher
from labelmill.schemas.images import Status
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, MAP_COLUMNS
from labelmill.schemas.locations import join_location
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.tasks.relabel.encode import Labelled
from labelmill.tasks.relabel.engine import Engine
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.shards import RETRIED_REASONS, Shard, read_split
from labelmill.tasks.store.parquet import Layout
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.table import Table

SHARD_COLUMNS = ("image_id", "split", "uri", "bytes", "mtime_ns", "sha256", "label", "status", "reason", "detail")

LABEL_MAPS_LAYOUT = Layout(level=15, byte_streams=tuple(f"{name}.list.element" for name in MAP_COLUMNS))
"""Level 15 takes 12 % off level 3 for about 1 ms an image at 15x15, beside some 100 ms of the teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMapJob:
    """What all shards of a run share. `teacher_labels` maps a dataset's label to the teacher's class id.

    `roots` holds each split's folder or URL of images; `run` is the mark of this run in the receipts.
    """

    images: Table
    label_maps: Table
    roots: dict[str, str]
    teacher: Teacher
    engine: Engine
    settings: RelabelSettings
    temperature: float
    teacher_labels: tuple[int | None, ...]
    run: str


def read_rows(images: Table, part: Part, split: str | None) -> pa.Table:
    """Read what labelling needs of an images part, only the rows of `split` when one is named."""
    return read_split(images, part, split, SHARD_COLUMNS)


def plan_shards(
    images: Table,
    version: Version,
    *,
    split: str | None,
    shard_size: int,
    common: dict[str, Any],
    teacher_labels: Sequence[int | None],
) -> Iterator[Shard]:
    """Cut an images version into shards that never cross its parts: rows appended later leave the others as they are.

    `common` holds what decides the result besides the rows; it is part of each shard's key.
    """
    number = 0
    for part in version.parts:
        rows = read_rows(images, part, split)
        for start in range(0, rows.num_rows, shard_size):
            piece = rows.slice(start, shard_size)
            key = digest_json({"common": common, "rows": _content(piece, teacher_labels)})
            yield Shard(number=number, part=part, split=split, start=start, stop=start + piece.num_rows, key=key)
            number += 1


def _content(rows: pa.Table, teacher_labels: Sequence[int | None]) -> list[list[Any]]:
    columns = [rows[name].to_pylist() for name in ("image_id", "split", "sha256", "status", "reason", "detail")]
    if rows["sha256"].null_count:  # what an ingest did not read is known by its place, size and time
        places = zip(*(rows[name].to_pylist() for name in ("uri", "bytes", "mtime_ns")), strict=True)
        columns[2] = [
            list(place) if sha256 is None and status == Status.DONE else sha256
            for sha256, status, place in zip(columns[2], columns[3], places, strict=True)
        ]
    return [list(row) for row in zip(*columns, labels_of(rows, teacher_labels), strict=True)]


def labels_of(rows: pa.Table, teacher_labels: Sequence[int | None]) -> list[int | None]:
    """Return each row's label as a class id of the teacher, None where it has none or it was not matched."""
    return [None if label is None else teacher_labels[label] for label in rows["label"].to_pylist()]


def label_shard(
    job: LabelMapJob, shard: Shard, *, on_batch: Callable[[int, int], None] = lambda done, rejected: None
) -> Receipt:
    """Label the images of a shard, write its part and its receipt. Every row of the shard becomes a row."""
    rows = read_rows(job.images, shard.part, shard.split).slice(shard.start, len(shard))
    results = label_rows(job, rows, on_batch=on_batch)
    table = build_rows(rows, results, labels_of(rows, job.teacher_labels))
    part = job.label_maps.write_part(table, key=shard.key, layout=LABEL_MAPS_LAYOUT)
    done = sum(r is not None and r.map is not None for r in results)
    receipt = Receipt(
        key=shard.key,
        run=job.run,
        part=part,
        counts={"done": done, "rejected": len(rows) - done},
        retry=any(r is not None and r.reason in RETRIED_REASONS for r in results),
    )
    job.label_maps.receipts.write(receipt)
    return receipt


def label_rows(
    job: LabelMapJob, rows: pa.Table, *, on_batch: Callable[[int, int], None] = lambda done, rejected: None
) -> list[Labelled | None]:
    """Label the images of some rows; None for an image that was rejected at ingest."""
    good = [place for place, status in enumerate(rows["status"].to_pylist()) if status == Status.DONE]
    on_batch(len(rows) - len(good), len(rows) - len(good))
    to_label = rows.take(pa.array(good, pa.int64()))
    labelled = job.engine.label(
        list_images(to_label, job.roots),
        temperature=job.temperature,
        on_batch=on_batch,
    )
    results: list[Labelled | None] = [None] * len(rows)
    for place, result in zip(good, labelled, strict=True):
        results[place] = result
    return results


def list_images(rows: pa.Table, roots: Mapping[str, str]) -> list[ImageToLabel]:
    """Return the images of some rows, `roots` holding each split's folder or URL."""
    return [
        ImageToLabel(path=join_location(roots[row["split"]], row["uri"]), sha256=row["sha256"], bytes=row["bytes"])
        for row in rows.select(["uri", "split", "sha256", "bytes"]).to_pylist()
    ]


def build_rows(rows: pa.Table, results: Sequence[Labelled | None], labels: Sequence[int | None]) -> pa.Table:
    """Build the label maps rows; None in `results` is an image that was rejected at ingest and keeps its reason."""
    statuses = [Status.DONE if r is not None and r.map is not None else Status.REJECTED for r in results]
    columns: dict[str, Any] = {
        "image_id": rows["image_id"],
        "split": rows["split"],
        "status": [str(status) for status in statuses],
        "reason": [old if r is None else r.reason for r, old in zip(results, rows["reason"].to_pylist(), strict=True)],
        "detail": [old if r is None else r.detail for r, old in zip(results, rows["detail"].to_pylist(), strict=True)],
        "label": labels,
        "pooled_class": [None if r is None else r.pooled_class for r in results],
        "pooled_prob": [None if r is None else r.pooled_prob for r in results],
    }
    for name in MAP_COLUMNS:
        columns[name] = [None if r is None or r.map is None else getattr(r.map, name) for r in results]
    return pa.table([_column(columns[field.name], field.type) for field in LABEL_MAPS_SCHEMA], schema=LABEL_MAPS_SCHEMA)


def _column(values: Any, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:  # noqa: ANN401 - rows or a column
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)
