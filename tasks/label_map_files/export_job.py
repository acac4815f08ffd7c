"""An export of label maps to files from its parameters to its shards, in steps that a flow calls in turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.label_maps import LabelMapMetadata
from labelmill.schemas.parameters import ExportLabelMapsParameters
from labelmill.schemas.versions import Part, Version
from labelmill.tasks.label_map_files.paths import map_file_path
from labelmill.tasks.label_map_files.preflight import check_export
from labelmill.tasks.store import Store, Table, open_store


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportShard:
    """A part of the version; for each of its rows the path of the file to write, None where there is none."""

    number: int
    part: Part
    paths: tuple[str | None, ...]

    @property
    def files(self) -> int:
        """Files that the shard writes."""
        return sum(path is not None for path in self.paths)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRun:
    """A prepared export: what is exported, where to, and its shards. Files that are there tell a rerun what is done."""

    parameters: ExportLabelMapsParameters
    table: Table
    version: Version
    metadata: LabelMapMetadata
    out: Path
    workers: int
    shards: tuple[ExportShard, ...]

    @property
    def files(self) -> int:
        """Files that the folder will have."""
        return sum(shard.files for shard in self.shards)


def prepare_export(parameters: ExportLabelMapsParameters) -> ExportRun:
    """Find each map's path by its image's uri; nothing is written yet.

    Raises NotInStore or BadInput when the version or its images are not there, a path would lead out of the folder,
    or two images would share a file.
    """
    check_export(parameters)
    store = open_store(parameters.store)
    table = store.table(parameters.table)
    version = table.version(parameters.version)
    rows = table.read(version, ["image_id", "split", "status"])
    uris = _find_uris(store, version, rows["image_id"])
    wanted = pc.equal(rows["status"], Status.DONE)
    if parameters.split is not None:
        wanted = pc.and_(wanted, pc.equal(rows["split"], parameters.split))
    run = ExportRun(
        parameters=parameters, table=table, version=version,
        metadata=LabelMapMetadata.read(parameters.table, version.metadata), out=Path(parameters.out),
        workers=parameters.workers or os.cpu_count() or 1, shards=tuple(_cut(version, pc.if_else(wanted, uris, None))),
    )  # fmt: skip
    _check_paths(run, sorted(set(rows["split"].to_pylist())))
    return run


def _find_uris(store: Store, version: Version, image_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the uri of each image by the version of the images table that the maps were made from."""
    name = f"{version.table.partition('.')[0]}.images"
    if name not in version.lineage.inputs:
        raise BadInput(f"{version.table} v{version.number}: its lineage does not name {name}; the files have no names")
    images = store.table(name)
    known = images.read(images.version(version.lineage.inputs[name]), ["image_id", "uri"])
    places = pc.index_in(image_ids, value_set=known["image_id"].combine_chunks())
    if places.null_count:
        raise BadInput(f"{version.table} v{version.number}: {places.null_count} of its images are not in {name}")
    return known["uri"].take(places)


def _cut(version: Version, uris: pa.ChunkedArray) -> Iterator[ExportShard]:
    start = 0
    for number, part in enumerate(version.parts):
        asked = uris.slice(start, part.rows).to_pylist()
        paths = tuple(None if uri is None else map_file_path(uri) for uri in asked)
        yield ExportShard(number=number, part=part, paths=paths)
        start += part.rows


def _check_paths(run: ExportRun, splits: list[str]) -> None:
    seen: set[str] = set()
    for path in (path for shard in run.shards for path in shard.paths if path is not None):
        if path in seen:
            raise BadInput(
                f"out: two images would share the file {path}; export the splits {', '.join(splits)} one by one, or "
                "give the images names that differ in more than the suffix"
            )
        seen.add(path)
    if not seen:
        of_split = (
            f" in split {run.parameters.split!r}, its splits: {', '.join(splits)}" if run.parameters.split else ""
        )
        raise BadInput(f"{run.table.name} v{run.version.number}: no map to export{of_split}")
