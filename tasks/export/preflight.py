"""Checks of an export's parameters, before any work."""

from __future__ import annotations

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.parameters import ExportParameters
from labelmill.schemas.versions import Version
from labelmill.tasks.store import Table, open_store


def check_dataset(parameters: ExportParameters) -> tuple[Table, Version, Version | None]:
    """Return the images table with its version and the version of the boxes, None where the dataset has none.

    Raises NotInStore for what does not exist, BadInput when the format needs what the dataset has not.
    """
    store = open_store(parameters.store)
    images = store.table(f"{parameters.dataset}.images")
    version = images.version(parameters.images_version)
    boxes = store.table(f"{parameters.dataset}.boxes")
    boxes_version = boxes.version(parameters.boxes_version) if parameters.boxes_version or boxes.numbers() else None
    _check_format(parameters, version, boxes_version)
    return images, version, boxes_version


def _check_format(parameters: ExportParameters, images: Version, boxes: Version | None) -> None:
    if parameters.format == "yolo" and boxes is None:
        raise NotInStore(f"{parameters.dataset}.boxes: no such table in this store; YOLO needs boxes")
    if parameters.format in ("yolo", "imagefolder") and images.metadata["classes"] is None:
        raise BadInput(f"format: {parameters.format} needs classes, and dataset {parameters.dataset} has none")
    if parameters.format in ("yolo", "webdataset", "imagefolder") and parameters.images == "none":
        raise BadInput(f"images: {parameters.format} is made of images; choose link or copy")
