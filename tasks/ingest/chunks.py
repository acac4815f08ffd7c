"""Cut what an ingest has to do into chunks, each of which becomes a part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestSettings
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.ingest.plan import IngestPlan
from labelmill.tasks.ingest.rows import RowSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Files to read for a part with the rows `image_ids`; its other rows are those of `replaces`, an older part."""

    number: int
    files: tuple[ListedFile, ...]
    labels: tuple[int | None, ...]
    image_ids: tuple[str, ...]
    replaces: Part | None
    key: str


def parts_of_split(latest: Version | None, rows: pa.Table, split: str) -> Iterator[tuple[Part, list[str]]]:
    """Yield each part of a split with its image ids, from the version's `rows` (image_id, split at least).

    A part holds one split.
    """
    start = 0
    for part in latest.parts if latest else ():
        if rows["split"][start].as_py() == split:
            yield part, rows["image_id"].slice(start, part.rows).to_pylist()
        start += part.rows


def cut_chunks(
    parameters: IngestSettings,
    plan: IngestPlan,
    older: Sequence[tuple[Part, list[str]]],
    known: dict[str, tuple[ListedFile, int | None]],
    settings: RowSettings,
) -> Iterator[Chunk]:
    """Yield a chunk for each older part with a changed or removed image, then chunks of the added images."""
    changed = frozenset(plan.changed)
    touched = changed.union(plan.removed)
    pieces: list[tuple[Part | None, list[str]]] = [
        (part, [image_id for image_id in ids if image_id in known])
        for part, ids in older
        if not touched.isdisjoint(ids)
    ]
    size = parameters.chunk_size
    pieces += [(None, list(plan.added[start : start + size])) for start in range(0, len(plan.added), size)]
    for number, (replaces, ids) in enumerate(piece for piece in pieces if piece[1]):
        to_read = [known[image_id] for image_id in ids if replaces is None or image_id in changed]
        files, labels = tuple(file for file, _ in to_read), tuple(label for _, label in to_read)
        kept = (replaces.sha256, ids) if replaces else None
        key = _chunk_key(files, labels, kept, settings, rehash=parameters.rehash)
        yield Chunk(number=number, files=files, labels=labels, image_ids=tuple(ids), replaces=replaces, key=key)


def _further(file: ListedFile, settings: RowSettings) -> list[object]:
    """Return what decides the rows of some sources alone."""
    several = settings.several.get(file.path)
    further: list[object] = [] if several is None and file.member_uri is None else [file.member_uri, several]
    return [*further, *file.rejected] if file.rejected else further


def _chunk_key(
    files: Sequence[ListedFile],
    labels: Sequence[int | None],
    kept: tuple[str, Sequence[str]] | None,
    settings: RowSettings,
    *,
    rehash: bool,
) -> str:
    paths = hashlib.sha256(os.fsencode("\0".join(file.path for file in files))).hexdigest()  # no path has a zero byte
    facts = [
        paths,
        [file.size for file in files],
        [file.mtime_ns for file in files],
        [file.kind for file in files],
        labels,
    ]
    further = [[place, *found] for place, file in enumerate(files) if (found := _further(file, settings))]
    bounds = [settings.split, settings.id_prefix, settings.max_pixels, settings.max_bytes, settings.labels_required]
    return digest_json([IMAGES_SCHEMA.to_string(), settings.classes.digest(), bounds, kept, rehash, facts, further])
