"""What the tests of boxes share: ingests of annotations without Prefect, and small images."""

import io
import json

import pytest
from PIL import Image

from labelmill.schemas.parameters import ExportParameters, IngestCocoParameters
from labelmill.tasks.boxes.coco import prepare_coco
from labelmill.tasks.boxes.job import write_boxes
from labelmill.tasks.export.formats import export_dataset
from labelmill.tasks.export.job import prepare_export
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk
from labelmill.tasks.store import open_store

PREPARE = {IngestCocoParameters: prepare_coco}


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
        return images if run is prepared else write_boxes(prepared, images)

    def export(self, form, out="out", **options):
        values = {"store": str(self.store), "dataset": "coco", "format": form, "out": str(self.folder / out), **options}
        run = prepare_export(ExportParameters(**values))
        export_dataset(run)
        return run

    def rows(self, table):
        found = open_store(self.store).table(f"coco.{table}")
        version = found.version()
        return found.read(version, [column.name for column in version.columns]).to_pylist()


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path)
