"""Draw images of a label maps version, with what is stored of each and where its file is."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelmill.models.label_encoding import EncodedMap
from labelmill.schemas.errors import BadInput, NotInStore, StoreDamaged
from labelmill.schemas.images import Status
from labelmill.schemas.label_maps import MAP_COLUMNS, LabelMapMetadata
from labelmill.schemas.locations import join_location
from labelmill.schemas.versions import Version
from labelmill.tasks.ingest.sources import is_there
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.store import Store
from labelmill.tasks.store.table import Table

_FILE_COLUMNS = ("image_id", "split", "uri", "bytes", "sha256")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """An image that has a map: the map as stored, and the file as it was ingested."""

    image_id: str
    map: EncodedMap
    file: ImageToLabel


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The images drawn, in the version's order, and how many have a map at all."""

    images: tuple[StoredImage, ...]
    done: int


def draw_sample(
    store: Store, version: Version, metadata: LabelMapMetadata, count: int, *, image_root: str | Path | None = None
) -> Sample:
    """Draw `count` images that have a map, the same at every call, evenly spread over the version's parts.

    Of each of `count` stretches of equal length it takes the image whose id has the lowest sha256.

    Raises BadInput or NotInStore when the version does not say where its images are, StoreDamaged when the tables
    contradict each other.
    """
    table = store.table(version.table)
    found: list[tuple[str, int, int]] = []  # (draw, place of the part, row in it)
    for place, part in enumerate(version.parts):
        rows = table.read_part(part, ["image_id", "status"])
        for row, (image_id, status) in enumerate(zip(*(rows[c].to_pylist() for c in rows.column_names), strict=True)):
            if status == Status.DONE:
                found.append((hashlib.sha256(image_id.encode()).hexdigest(), place, row))
    count = min(count, len(found))
    drawn = [min(found[n * len(found) // count : (n + 1) * len(found) // count]) for n in range(count)]
    rows_of: dict[int, list[int]] = defaultdict(list)
    for _, place, row in drawn:
        rows_of[place].append(row)
    stored = [row for place, rows in rows_of.items() for row in _read_maps(table, version, place, rows)]
    if not stored:
        return Sample(images=(), done=len(found))
    files = _find_files(store, version, stored, image_root)
    images = [_stored_image(row, files, metadata) for row in stored]
    return Sample(images=tuple(images), done=len(found))


def _read_maps(table: Table, version: Version, place: int, rows: list[int]) -> list[dict[str, Any]]:
    part = table.read_part(version.parts[place], ["image_id", "split", *MAP_COLUMNS])
    read: list[dict[str, Any]] = part.take(pa.array(rows, pa.int64())).to_pylist()
    return read


def _stored_image(
    row: dict[str, Any], files: dict[tuple[str, str], ImageToLabel], metadata: LabelMapMetadata
) -> StoredImage:
    cells = metadata.grid[0] * metadata.grid[1]
    if len(row["index"]) != cells * metadata.top_k or len(row["top"]) != cells:
        raise StoreDamaged(
            f"image {row['image_id']!r}: expected a map of {cells} cells of {metadata.top_k} classes, "
            f"got {len(row['top'])} cells and {len(row['index'])} classes"
        )
    arrays = {name: np.asarray(row[name], dtype=np.int32) for name in MAP_COLUMNS}
    return StoredImage(image_id=row["image_id"], map=EncodedMap(**arrays), file=files[(row["image_id"], row["split"])])


def _find_files(
    store: Store, version: Version, stored: list[dict[str, Any]], image_root: str | Path | None
) -> dict[tuple[str, str], ImageToLabel]:
    name, number = next(((n, v) for n, v in version.lineage.inputs.items() if n.endswith(".images")), (None, None))
    if name is None:
        raise BadInput(f"{version.table} v{version.number}: it does not say from which images it was made")
    table = store.table(name)
    try:
        images = table.version(number)
    except NotInStore as error:
        raise NotInStore(f"{version.table} v{version.number} was made from {name} v{number}: {error}") from error
    roots = _find_roots(images, version, {row["split"] for row in stored}, image_root)
    wanted = {(row["image_id"], row["split"]) for row in stored}
    ids = pa.array([image_id for image_id, _ in wanted], pa.string())
    files = {}
    for part in images.parts:
        rows = table.read_part(part, _FILE_COLUMNS)
        for row in rows.filter(pa.compute.is_in(rows["image_id"], value_set=ids)).to_pylist():
            files[(row["image_id"], row["split"])] = ImageToLabel(
                path=join_location(roots.get(row["split"], ""), row["uri"]), sha256=row["sha256"], bytes=row["bytes"]
            )
    if lacking := wanted - files.keys():
        raise StoreDamaged(f"{name} v{number}: it has no image {min(lacking)[0]!r}, of which {version.table} has a map")
    return files


def _find_roots(images: Version, version: Version, splits: set[str], image_root: str | Path | None) -> dict[str, str]:
    if image_root is not None:
        if len(splits) > 1:
            raise BadInput(f"image_root: the splits {', '.join(sorted(splits))} have a folder each")
        return dict.fromkeys(splits, str(image_root))
    roots: dict[str, str] = dict(images.metadata["roots"])
    recorded = version.lineage.parameters.get("image_root")
    if recorded and len(splits) == 1 and is_there(recorded):
        return dict.fromkeys(splits, recorded)
    return roots
