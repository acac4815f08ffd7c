"""The formats of exports by name."""

from __future__ import annotations

from labelmill.tasks.export.coco import export_coco
from labelmill.tasks.export.job import ExportRun
from labelmill.tasks.export.place_images import open_placing

_FORMATS = {
    "coco": export_coco,
}


def export_dataset(run: ExportRun) -> None:
    """Write a prepared export; what it wrote is counted in `run.exported`."""
    with open_placing(run) as place:
        _FORMATS[run.parameters.format](run, place)
