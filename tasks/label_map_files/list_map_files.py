"""What a folder of map files holds, and which of its files belong to an image."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from labelmill.schemas.errors import BadInput
from labelmill.schemas.versions import Version
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, list_files
from labelmill.tasks.label_map_files.paths import MAP_SUFFIX, map_file_path
from labelmill.tasks.store.files import TEMPORARY_PREFIX
from labelmill.tasks.store.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedFiles:
    """The map files that an images version asks for.

    wanted: the paths of the split's images in row order, with those that were rejected at ingest; shared: those of
    them that are asked for by several images; known: the paths of all images of the version, of any split.
    """

    wanted: tuple[str, ...]
    shared: frozenset[str]
    known: frozenset[str]


def list_map_files(source: str) -> dict[str, ListedFile]:
    """Return the .pt files below a folder by their paths; raise BadInput when there are none, or a part is hidden."""
    _check_folder(source)
    found = list_files(source)
    hidden = [file.path for file in found if file.kind is FileKind.UNREADABLE_FOLDER]
    if hidden:
        raise BadInput(f"source: {len(hidden)} folders below {source} cannot be read, for example {hidden[0]!r}")
    files = {file.path: file for file in found if _is_map_file(file.path)}
    if not files:
        raise BadInput(f"source: expected {MAP_SUFFIX} files below {source}, got {len(found)} other files")
    return files


def _check_folder(source: str) -> None:
    try:
        with os.scandir(source) as entries:
            if next(entries, None) is not None:
                return
    except OSError as error:
        raise BadInput(f"source: {source}: {error.strerror}; expected a folder with {MAP_SUFFIX} files") from error
    raise BadInput(f"source: {source} is empty; expected a folder with {MAP_SUFFIX} files")


def _is_map_file(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith(MAP_SUFFIX) and not name.startswith(TEMPORARY_PREFIX)  # what a killed export leaves


def find_wanted(images: Table, version: Version, split: str | None) -> WantedFiles:
    """Return the paths of the map files of an images version, whether they exist or not."""
    known: set[str] = set()
    wanted: list[str] = []
    for part in version.parts:
        rows = images.read_part(part, ["uri", "split"])
        for uri, its_split in zip(rows["uri"].to_pylist(), rows["split"].to_pylist(), strict=True):
            try:
                path = map_file_path(uri)
            except BadInput:  # that image becomes a rejected row
                continue
            known.add(path)
            if split in (None, its_split):
                wanted.append(path)
    shared = frozenset(path for path, count in Counter(wanted).items() if count > 1)
    return WantedFiles(wanted=tuple(wanted), shared=shared, known=frozenset(known))
