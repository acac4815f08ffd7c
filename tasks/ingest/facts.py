"""Find the facts of many image files, as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.images import IMAGES_SCHEMA, Status
from labelmill.schemas.locations import join_location
from labelmill.tasks.images.inspect_image import ImageFacts, inspect_bytes
from labelmill.tasks.images.plain_jpegs import PlainJpegs, read_plain_jpegs
from labelmill.tasks.images.read_bytes import read_each
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.threads import open_threads

FACTS_SCHEMA = pa.schema([IMAGES_SCHEMA.field(name).with_nullable(True) for name in ImageFacts._fields])
"""The columns of the images table that only a read tells."""

_FILES_PER_THREAD = 32
"""Files that a thread does at once: few, so that all threads have some."""

FILES_PER_STEP = 512
"""Files that a process does at once: few, for smooth progress; enough, for handing them over not to cost."""

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FactsRequest:
    """Files to read: places relative to `root`, and the bounds of `inspect_image`; `threads` read at once."""

    root: str
    uris: Sequence[str]
    max_pixels: int
    max_bytes: int
    threads: int = 1


FindFacts = Callable[[FactsRequest], Iterator[pa.RecordBatch]]
"""Yields batches of FACTS_SCHEMA that together have a row for each file asked for, in order."""


def find_facts(request: FactsRequest) -> Iterator[pa.RecordBatch]:
    """Read the files in threads of this process; yield their facts in steps of some files."""
    uris, size = request.uris, FILES_PER_STEP if request.threads == 1 else _FILES_PER_THREAD
    steps = [uris[at : at + size] for at in range(0, len(uris), size)]
    if request.threads == 1:
        yield from (_inspect_all(request, step) for step in steps)
        return
    with open_threads(request.threads, name="ingest") as threads:
        yield from threads.map(lambda step: _inspect_all(request, step), steps)


def _inspect_all(request: FactsRequest, uris: Sequence[str]) -> pa.RecordBatch:
    below = join_location(request.root, "")
    read = read_each([below + uri for uri in uris], max_bytes=request.max_bytes)
    good = [data for data in read if not isinstance(data, RejectedImage)]
    plain = read_plain_jpegs(good)
    plain.known[plain.widths * plain.heights > request.max_pixels] = False
    known = iter(plain.known.tolist())
    others = [_inspect_other(data, request) for data in read if isinstance(data, RejectedImage) or not next(known)]
    columns = _as_plain_columns(good, plain)
    if not others:
        return columns
    # In the order of the files: the plain ones lie before the others.
    is_plain = np.zeros(len(read), bool)
    is_plain[[not isinstance(data, RejectedImage) for data in read]] = plain.known
    order = np.where(is_plain, np.cumsum(is_plain) - 1, len(columns) + np.cumsum(~is_plain) - 1)
    both = pa.Table.from_batches([columns, as_columns(others)]).take(pa.array(order))
    return both.combine_chunks().to_batches()[0]


def _inspect_other(data: bytes | RejectedImage, request: FactsRequest) -> ImageFacts:
    if isinstance(data, RejectedImage):
        return ImageFacts(status=Status.REJECTED, reason=data.reason, detail=data.detail)
    return inspect_bytes(data, max_pixels=request.max_pixels)


def _as_plain_columns(files: Sequence[bytes], plain: PlainJpegs) -> pa.RecordBatch:
    """Return the facts of those files that are known to be plain JPEGs."""
    known = [data for data, is_known in zip(files, plain.known.tolist(), strict=True) if is_known]
    modes = np.where(plain.components[plain.known] == 1, "L", "RGB")
    columns = {
        "status": pa.repeat(pa.scalar(Status.DONE.value), len(known)),
        "width": pa.array(plain.widths[plain.known], pa.int32()),
        "height": pa.array(plain.heights[plain.known], pa.int32()),
        "format": pa.repeat(pa.scalar("jpeg"), len(known)),
        "mode": pa.array(modes.tolist(), pa.string()),
        "bytes": pa.array([len(data) for data in known], pa.int64()),
        "sha256": pa.array([hashlib.sha256(data).hexdigest() for data in known], pa.string()),
    }
    arrays = [columns.get(field.name, pa.nulls(len(known), field.type)) for field in FACTS_SCHEMA]
    return pa.record_batch(arrays, schema=FACTS_SCHEMA)


def as_columns(found: Sequence[ImageFacts]) -> pa.RecordBatch:
    """Return facts as a batch of FACTS_SCHEMA."""
    columns = dict(zip(ImageFacts._fields, zip(*found, strict=True), strict=True)) if found else {}
    columns["detail"] = tuple(_as_utf8(detail) for detail in columns.get("detail", ()))
    arrays = [_as_array(columns.get(field.name, ()), field.type) for field in FACTS_SCHEMA]
    return pa.record_batch(arrays, schema=FACTS_SCHEMA)


def _as_utf8(detail: str | None) -> str | None:
    return None if detail is None else detail.encode("utf-8", "backslashreplace").decode()


def _as_array(values: Sequence[object], of: pa.DataType) -> pa.Array:
    """Return a column; a size that it cannot hold is null: only a forged header states it, and the detail says it."""
    if of != pa.int32():
        return pa.array(values, of)
    sizes = pa.array(values, pa.int64())
    return pc.if_else(pc.less_equal(sizes, _INT32_MAX), sizes, pa.scalar(None, pa.int64())).cast(of)
