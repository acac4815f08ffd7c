"""Make the rows of the images table of a chunk of listed files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.classes import ClassList
from labelmill.schemas.images import IMAGES_SCHEMA, Reason, Status
from labelmill.schemas.locations import is_object_url
from labelmill.tasks.ingest.facts import FACTS_SCHEMA, FactsRequest, FindFacts, find_facts
from labelmill.tasks.ingest.list_files import ListedFile, as_text
from labelmill.tasks.ingest.plan import lacks_label
from labelmill.tasks.store.parquet import Layout

THREADS_PER_CORE = 4
"""Reading waits for the disk more than it computes."""

IMAGES_LAYOUT = Layout(level=1, plain=("image_id", "uri", "bytes", "sha256"))
"""Most of these columns are names and digits of digests, which dictionaries and levels make no smaller."""


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
    read: FindFacts = find_facts,
    on_done: Callable[[int], None] = lambda _: None,
) -> pa.Table:
    """Return one row of IMAGES_SCHEMA for each listed file, in order; `labels` are class ids or None.

    `read` finds the facts of those that can be read. `on_done(n)` is called in this thread with the number of files
    done since the last call; what it raises ends the work. Zero workers means four threads for each core.
    """
    refused = _refuse_unread(files, settings)
    places = [place for place, rejection in enumerate(refused) if rejection is None]
    request = FactsRequest(
        root=settings.root,
        uris=[files[place].uri for place in places],
        max_pixels=settings.max_pixels,
        max_bytes=settings.max_bytes,
        threads=settings.workers or THREADS_PER_CORE * (os.cpu_count() or 1),
    )
    batches = []
    if refused_count := len(files) - len(places):
        on_done(refused_count)
    for batch in read(request):
        batches.append(batch)
        on_done(batch.num_rows)
    facts = pa.Table.from_batches(batches, FACTS_SCHEMA)
    if len(places) < len(files):
        facts = _spread(facts, places, len(files))
    if settings.labels_required:
        for place, (file, label) in enumerate(zip(files, labels, strict=True)):
            if lacks_label(file, label, required=True):
                refused[place] = (Reason.NO_LABEL, settings.without_label)
    return _join(files, labels, settings, _reject(facts, refused))


def _refuse_unread(files: Sequence[ListedFile], settings: RowSettings) -> list[tuple[Reason, str] | None]:
    """Return for each listed file why it is not read at all, None for one that is."""
    refused = [None if file.is_plain else file.rejection for file in files]
    if is_object_url(settings.root):  # where the first of a file too large would be paid for
        too_large = (Reason.TOO_MANY_BYTES, f"more than {settings.max_bytes} bytes")
        refused = [
            too_large if rejection is None and (file.size or 0) > settings.max_bytes else rejection
            for file, rejection in zip(files, refused, strict=True)
        ]
    return refused


def _spread(facts: pa.Table, places: Sequence[int], rows: int) -> pa.Table:
    """Return `rows` rows with the facts at their places, all others null."""
    where: list[int | None] = [None] * rows
    for number, place in enumerate(places):
        where[place] = number
    return facts.take(pa.array(where, pa.int64()))


def _reject(facts: pa.Table, refused: Sequence[tuple[Reason, str] | None]) -> pa.Table:
    """Return the facts with these rejections in the place of what was found."""
    if not any(refused):
        return facts
    found = pa.array([rejection is not None for rejection in refused])
    given = {
        "status": pa.scalar(Status.REJECTED.value),
        "reason": pa.array([rejection and rejection[0].value for rejection in refused], pa.string()),
        "detail": pa.array([rejection and rejection[1] for rejection in refused], pa.string()),
    }
    for name, values in given.items():
        facts = facts.set_column(facts.schema.get_field_index(name), name, pc.if_else(found, values, facts[name]))
    return facts


def _join(
    files: Sequence[ListedFile], labels: Sequence[int | None], settings: RowSettings, facts: pa.Table
) -> pa.Table:
    """Return the rows of IMAGES_SCHEMA from what was listed, what was read and the labels."""
    wnids = pa.array([name.wnid for name in settings.classes.classes], pa.string())
    ids = pa.array(labels, pa.int32())
    paths = pa.array([as_text(file.path) for file in files], pa.string())
    in_place = all(file.member_uri is None for file in files)
    several, labels_type = settings.several, IMAGES_SCHEMA.field("labels").type
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        **{name: facts[name] for name in facts.column_names},
        "image_id": pc.binary_join_element_wise(settings.id_prefix, paths, "") if settings.id_prefix else paths,
        "split": pa.repeat(pa.scalar(settings.split), len(files)),
        "uri": paths if in_place else pa.array([as_text(file.uri) for file in files], pa.string()),
        "bytes": pc.coalesce(facts["bytes"], pa.array([file.size for file in files], pa.int64())),
        # The listing's, older than the read: a file written in between differs at the next ingest and is read again.
        "mtime_ns": pa.array([file.mtime_ns for file in files], pa.int64()),
        "label": ids,
        "labels": pa.array([several.get(file.path) for file in files], labels_type)
        if several
        else pa.nulls(len(files), labels_type),
        "wnid": wnids.take(ids),
    }
    return pa.table([columns[field.name] for field in IMAGES_SCHEMA], schema=IMAGES_SCHEMA).combine_chunks()
