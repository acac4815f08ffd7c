"""Checks of the parameters of ingests with annotations, before any work."""

from __future__ import annotations

import os
from collections.abc import Callable

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import (
    IngestCocoParameters,
    IngestSettings,
    IngestTableParameters,
    IngestVocParameters,
    IngestYoloParameters,
)
from labelmill.tasks.boxes.voc_layout import find_voc
from labelmill.tasks.boxes.yolo_layout import find_yolo


def check_annotated(parameters: IngestSettings, check_source: Callable[[str, str], None]) -> None:
    """Raise BadInput when a file or folder that the parameters name cannot be read.

    `check_source(field, place)` refuses a place that holds no images.
    """
    if isinstance(parameters, IngestCocoParameters):
        _check_file("annotations", parameters.annotations, "a JSON file")
        check_source("images", parameters.images)
    if isinstance(parameters, IngestYoloParameters):
        find_yolo(parameters.source, parameters.split, parameters.names)
    if isinstance(parameters, IngestVocParameters):
        find_voc(parameters.source, parameters.image_set)
    if isinstance(parameters, IngestTableParameters):
        _check_file("table", parameters.table, "a CSV, TSV or Parquet file")
        check_source("images", parameters.images)


def _check_file(field: str, path: str, expected: str) -> None:
    if not os.path.isfile(path):
        raise BadInput(f"{field}: no such file: {path}; expected {expected}")
    if not os.access(path, os.R_OK):
        raise BadInput(f"{field}: {path}: no permission to read it")
