"""What the tests of annotated datasets share: ingests and exports without Prefect, and small images."""

import io
import json

from PIL import Image

from labelmill.schemas.parameters import (
    ExportParameters,
    IngestCocoParameters,
    IngestFolderParameters,
    IngestTableParameters,
    IngestVocParameters,
    IngestYoloParameters,
)
from labelmill.tasks.boxes.coco import prepare_coco
from labelmill.tasks.boxes.job import BoxesRun, write_boxes
from labelmill.tasks.boxes.voc import prepare_voc
from labelmill.tasks.boxes.yolo import prepare_yolo
from labelmill.tasks.export.formats import export_dataset
from labelmill.tasks.export.job import prepare_export
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.ingest.table_file import prepare_table
from labelmill.tasks.store import open_store

PREPARE = {
    IngestCocoParameters: prepare_coco,
    IngestFolderParameters: prepare_folder,
    IngestTableParameters: prepare_table,
    IngestVocParameters: prepare_voc,
    IngestYoloParameters: prepare_yolo,
}


def make_jpeg(size=(40, 30)):
    """Return the bytes of a small JPEG of a (width, height)."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, "jpeg")
    return buffer.getvalue()


class Dataset:
    """A store below a folder, ingested into and exported from as the flows do it."""

    def __init__(self, folder):
        self.folder = folder
        self.store = folder / "store"
        self.images = folder / "images"
        self.images.mkdir(exist_ok=True)
        (self.images / "unlisted.jpg").write_bytes(make_jpeg())

    def write_coco(self, content, name="instances.json"):
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def ingest_coco(self, content, **options):
        annotations = self.write_coco(content)
        return self.ingest(IngestCocoParameters, annotations=str(annotations), images=str(self.images), **options)

    def ingest(self, model, **options):
        parameters = model(**{"store": str(self.store), "dataset": "coco", "workers": 1, **options})
        prepared = PREPARE[model](parameters)
        run = getattr(prepared, "images", prepared)
        images = commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])
        return write_boxes(prepared, images) if isinstance(prepared, BoxesRun) else images

    def export(self, form, out="out", **options):
        values = {"store": str(self.store), "dataset": "coco", "format": form, "out": str(self.folder / out), **options}
        run = prepare_export(ExportParameters(**values))
        export_dataset(run)
        return run

    def ingest_table(self, text, name="labels.csv", **options):
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.ingest(IngestTableParameters, **{"table": str(path), "images": str(self.images), **options})

    def rows(self, table):
        found = open_store(self.store).table(f"coco.{table}")
        version = found.version()
        return found.read(version, [column.name for column in version.columns]).to_pylist()
