"""Checks of a flow's parameters against the world that cost nothing: before servers start and models load."""

from __future__ import annotations

from pathlib import Path

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import FlowParameters, IngestParameters, RelabelParameters
from labelmill.tasks.store import open_store

_NO_FILE = ("pretrained", "package:")


def check_parameters(parameters: FlowParameters) -> None:
    """Raise BadInput or NotInStore for what can be seen to be wrong without any work."""
    if isinstance(parameters, IngestParameters) and not Path(parameters.source).is_dir():
        raise BadInput(f"source: expected a folder with images: {parameters.source}")
    if isinstance(parameters, RelabelParameters):
        open_store(parameters.store).table(f"{parameters.dataset}.images").version(parameters.images_version)
        if not parameters.weights.startswith(_NO_FILE) and not Path(parameters.weights).is_file():
            raise BadInput(f"weights: no such file: {parameters.weights}; or give package:NAME or pretrained")
