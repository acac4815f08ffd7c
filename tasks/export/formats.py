"""The formats of exports by name."""

from __future__ import annotations

from labelmill.tasks.export.coco import export_coco
from labelmill.tasks.export.csv_file import export_csv
from labelmill.tasks.export.image_folder import export_imagefolder
from labelmill.tasks.export.job import ExportRun
from labelmill.tasks.export.out_folder import hold_folder
from labelmill.tasks.export.place_images import open_placing
from labelmill.tasks.export.web_dataset import export_webdataset
from labelmill.tasks.export.yolo import export_yolo

_FORMATS = {
    "coco": export_coco,
    "csv": export_csv,
    "imagefolder": export_imagefolder,
    "webdataset": export_webdataset,
    "yolo": export_yolo,
}


def export_dataset(run: ExportRun) -> None:
    """Write a prepared export; what it wrote is counted in `run.exported`.

    Raises BadInput when another process writes to the folder, or something else is in a file's place.
    """
    with hold_folder(run.out), open_placing(run) as place:
        _FORMATS[run.parameters.format](run, place)
