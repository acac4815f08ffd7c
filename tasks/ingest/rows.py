"""Read a chunk of listed files in threads and make its rows of the images table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa

from labelmill.schemas.classes import ClassList
from labelmill.schemas.images import IMAGES_SCHEMA, Reason, Status
from labelmill.schemas.locations import is_object_url, join_location
from labelmill.tasks.images.inspect_image import ImageFacts, inspect_image
from labelmill.tasks.ingest.list_files import ListedFile, as_text
from labelmill.tasks.ingest.plan import lacks_label

THREADS_PER_CORE = 4
"""Reading waits for the disk more than it computes."""

_FILES_PER_STEP = 32
"""Files that a thread takes at once: few, for smooth progress; enough, for queueing not to cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """What all rows of a split share. `root` is the folder or URL that paths are relative to.

    `several` holds, by path, all class ids of a file where the source gives more than one label an image;
    `without_label` says to people what a file without label lacks.
    """

    root: str
    split: str
    id_prefix: str = ""
    classes: ClassList
    labels_required: bool
    max_pixels: int
    max_bytes: int
    workers: int = 0
    several: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    without_label: str = ""


def build_rows(
    files: Sequence[ListedFile],
    labels: Sequence[int | None],
    settings: RowSettings,
    *,
    on_done: Callable[[int], None] = lambda _: None,
) -> pa.Table:
    """Return one row of IMAGES_SCHEMA for each listed file, in order; `labels` are class ids or None.

    `on_done(n)` is called in this thread with the number of files done since the last call; what it raises ends the
    work. Zero workers means four threads for each core.
    """
    pairs = list(zip(files, labels, strict=True))
    steps = [pairs[at : at + _FILES_PER_STEP] for at in range(0, len(pairs), _FILES_PER_STEP)]
    threads = settings.workers or THREADS_PER_CORE * (os.cpu_count() or 1)
    rows: list[dict[str, object]] = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ingest")
    try:
        for done in pool.map(lambda step: [_build_row(file, label, settings) for file, label in step], steps):
            rows.extend(done)
            on_done(len(done))
    finally:
        pool.shutdown(cancel_futures=True)
    return pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)


def _build_row(file: ListedFile, label: int | None, settings: RowSettings) -> dict[str, object]:
    facts = _find_facts(file, label, settings)
    text = as_text(file.path)
    return {
        "image_id": settings.id_prefix + text,
        "split": settings.split,
        "uri": as_text(file.uri),
        "width": _as_int32(facts.width),
        "height": _as_int32(facts.height),
        "format": facts.format,
        "mode": facts.mode,
        "exif_orientation": facts.exif_orientation,
        "bytes": file.size if facts.bytes is None else facts.bytes,
        # The listing's, older than the read: a file written in between differs at the next ingest and is read again.
        "mtime_ns": file.mtime_ns,
        "sha256": facts.sha256,
        "label": label,
        "labels": settings.several.get(file.path),
        "wnid": None if label is None else settings.classes.classes[label].wnid,
        "status": facts.status.value,
        "reason": None if facts.reason is None else facts.reason.value,
        "detail": None if facts.detail is None else facts.detail.encode("utf-8", "backslashreplace").decode(),
    }


def _as_int32(pixels: int | None) -> int | None:
    """Return None for a size that no column holds: only a forged header states it, and the detail repeats it."""
    return pixels if pixels is not None and pixels < 2**31 else None


def _find_facts(file: ListedFile, label: int | None, settings: RowSettings) -> ImageFacts:
    if file.rejection is not None:
        reason, detail = file.rejection
        return ImageFacts(status=Status.REJECTED, reason=reason, detail=detail)
    if is_object_url(settings.root) and (file.size or 0) > settings.max_bytes:  # without reading the first of it
        return ImageFacts(
            status=Status.REJECTED, reason=Reason.TOO_MANY_BYTES, detail=f"more than {settings.max_bytes} bytes"
        )
    path = join_location(settings.root, file.uri)
    facts = inspect_image(path, max_pixels=settings.max_pixels, max_bytes=settings.max_bytes)
    if not lacks_label(file, label, required=settings.labels_required):
        return facts
    return replace(facts, status=Status.REJECTED, reason=Reason.NO_LABEL, detail=settings.without_label)
