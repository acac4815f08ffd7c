"""Checks of a flow's parameters against the world that cost nothing: before servers start and models load."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_object_url
from labelmill.schemas.parameters import (
    ExportLabelMapsParameters,
    ExportParameters,
    FlowParameters,
    ImportLabelMapsParameters,
    IngestImagenetParameters,
    IngestParameters,
    IngestSettings,
    RelabelParameters,
    TeacherParameters,
)
from labelmill.tasks.boxes.preflight import check_annotated
from labelmill.tasks.export.preflight import check_dataset
from labelmill.tasks.ingest.list_files import is_text
from labelmill.tasks.ingest.sources import holds_files, is_archive
from labelmill.tasks.label_map_files.preflight import check_export, check_import, check_writable
from labelmill.tasks.store import open_store

_NO_FILE = ("pretrained", "package:")


def check_parameters(parameters: FlowParameters) -> None:
    """Raise BadInput or NotInStore for what can be seen to be wrong without any work."""
    for name, value in parameters:
        if isinstance(value, str) and not is_text(value):  # no version file could hold it
            raise BadInput(f"{name}: expected valid UTF-8, got {os.fsencode(value)!r}")
    if isinstance(parameters, IngestSettings):
        _check_ingest(parameters)
    if isinstance(parameters, RelabelParameters):
        open_store(parameters.store).table(f"{parameters.dataset}.images").version(parameters.images_version)
    if isinstance(parameters, TeacherParameters):
        _check_runner(parameters.runner)
        if not parameters.weights.startswith(_NO_FILE) and not os.path.isfile(parameters.weights):
            raise BadInput(f"weights: no such file: {parameters.weights}; or give package:NAME or pretrained")
    if isinstance(parameters, ImportLabelMapsParameters):
        check_import(parameters)
    if isinstance(parameters, ExportLabelMapsParameters):
        check_export(parameters)
    if isinstance(parameters, ExportParameters):
        check_dataset(parameters)


def _check_runner(runner: str) -> None:
    if runner != "threads" and find_spec(f"prefect_{runner}") is None:
        raise BadInput(f"runner: {runner} is not installed: pip install 'labelmill[{runner}]'")


def _check_ingest(parameters: IngestSettings) -> None:
    if isinstance(parameters, IngestParameters):
        _check_source("source", parameters.source)
    check_annotated(parameters, _check_source)
    devkit = parameters.devkit if isinstance(parameters, IngestImagenetParameters) else None
    if devkit is not None and not os.path.isdir(devkit):
        raise BadInput(f"devkit: no such folder: {devkit}")
    if is_object_url(parameters.store):
        open_store(parameters.store, create=True)
    else:
        check_writable("store", Path(parameters.store, parameters.dataset, "images"))


def _check_source(field: str, source: str) -> None:
    """Raise BadInput when a folder or an archive cannot be read, or nothing lies below a URL."""
    if is_object_url(source):
        if not holds_files(source):
            raise BadInput(f"{field}: {source} holds no objects; expected a place with images")
        return
    try:
        if not (os.path.isfile(source) and is_archive(source)):
            os.scandir(source).close()
    except OSError as error:
        raise BadInput(f"{field}: {source}: {error.strerror}; expected a folder with images, a tar or a zip") from error


def refuse_store_in_source(folder: str | Path, root: str) -> None:
    """Raise BadInput when a folder of the store lies below the images' root: an ingest would take in its files."""
    if is_object_url(folder) or is_object_url(root):
        below = f"{folder}/".startswith(f"{root}/")
    else:
        below = Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))
    if below:
        raise BadInput(f"store: {folder} lies below the images in {root} and would be ingested too; choose another")
