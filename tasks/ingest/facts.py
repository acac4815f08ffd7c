"""Find the facts of many image files, as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.locations import join_location
from labelmill.tasks.images.inspect_image import ImageFacts, inspect_image

FACTS_SCHEMA = pa.schema([IMAGES_SCHEMA.field(name).with_nullable(True) for name in ImageFacts._fields])
"""The columns of the images table that only a read tells."""

FILES_PER_STEP = 256
"""Files that are done at once: few, for smooth progress; enough, for handing them over not to cost."""

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
    uris = request.uris
    steps = [uris[at : at + FILES_PER_STEP] for at in range(0, len(uris), FILES_PER_STEP)]
    if request.threads == 1:
        yield from (_inspect_all(request, step) for step in steps)
        return
    pool = ThreadPoolExecutor(request.threads, thread_name_prefix="ingest")
    try:
        yield from pool.map(lambda step: _inspect_all(request, step), steps)
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect_all(request: FactsRequest, uris: Sequence[str]) -> pa.RecordBatch:
    below, pixels, size = join_location(request.root, ""), request.max_pixels, request.max_bytes
    found = [inspect_image(below + uri, max_pixels=pixels, max_bytes=size) for uri in uris]
    return as_columns(found)


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
