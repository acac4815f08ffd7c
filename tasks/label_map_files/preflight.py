"""Checks of an import's and an export's parameters that cost nothing: before servers start and torch loads."""

from __future__ import annotations

import os
from pathlib import Path

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_object_url
from labelmill.schemas.parameters import ExportLabelMapsParameters, ImportLabelMapsParameters
from labelmill.tasks.shards import check_split
from labelmill.tasks.store import open_store


def check_import(parameters: ImportLabelMapsParameters) -> None:
    """Raise BadInput or NotInStore when the images, the split or the folder of files are not there."""
    images = open_store(parameters.store).table(f"{parameters.dataset}.images")
    check_split(parameters.split, images.version(parameters.images_version).metadata["roots"])
    if not os.path.isdir(parameters.source):
        raise BadInput(f"source: no such folder: {parameters.source}")


def check_export(parameters: ExportLabelMapsParameters) -> None:
    """Raise BadInput or NotInStore when there is nothing to export, or the files would lie in the store."""
    version = open_store(parameters.store).table(parameters.table).version(parameters.version)
    if version.metadata.get("kind") != "label_maps":
        raise BadInput(f"{parameters.table}: expected a table of label maps")
    check_writable("out", Path(parameters.out))
    store = os.path.realpath(parameters.store)
    if not is_object_url(parameters.store) and os.path.commonpath([store, os.path.realpath(parameters.out)]) == store:
        raise BadInput(f"out: {parameters.out} lies in the store; choose another folder")


def check_writable(field: str, folder: Path) -> None:
    """Raise BadInput when a folder, or the nearest one above it that exists, cannot take files."""
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder):
        raise BadInput(f"{field}: expected a folder, found something else: {folder}")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise BadInput(f"{field}: no permission to write in {folder}")
