"""What the tests of ingest share."""

from io import BytesIO

import pytest
from PIL import Image

from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestFolderParameters, IngestImagenetParameters
from labelmill.tasks.images.read_bytes import read_each
from labelmill.tasks.ingest import facts
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder, prepare_imagenet
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version


@pytest.fixture(scope="session")
def jpeg():
    """A small whole JPEG."""
    buffer = BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.fixture
def write_tree(tmp_path, jpeg):
    """Write files below a folder from their paths; each has the same picture unless the path maps to bytes."""

    def write(*paths, **contents):
        for path in (*paths, *contents):
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(contents.get(path, jpeg))
        return tmp_path

    return write


@pytest.fixture
def reads(monkeypatch):
    """The paths of the files that ingests read, in any order."""
    paths = []

    def count(asked, **options):
        paths.extend(asked)
        return read_each(asked, **options)

    monkeypatch.setattr(facts, "read_each", count)
    return paths


@pytest.fixture
def ingest(tmp_path):
    """Ingest a folder below tmp_path into its store as the flow does, resuming by receipts; return the version."""

    def run(source="images", *, store="store", stop_after=None, **options):
        prepared = prepare(tmp_path, source, store=store, **options)
        receipts = [
            prepared.table.receipts.find(chunk.key, run=prepared.run) or ingest_chunk(prepared, chunk)
            for chunk in prepared.chunks[:stop_after]
        ]
        return None if stop_after else commit_ingest(prepared, receipts)

    return run


@pytest.fixture
def prepare_ingest(tmp_path):
    """Prepare an ingest of a folder below tmp_path and do its chunks; what is left is to commit."""

    def run(source="images", *, store="store", before_chunks=lambda: None, **options):
        prepared = prepare(tmp_path, source, store=store, **options)
        before_chunks()
        return prepared, [ingest_chunk(prepared, chunk) for chunk in prepared.chunks]

    return run


def prepare(folder, source, *, store, imagenet=False, **options):
    values = {"source": str(folder / source), "store": str(folder / store), "dataset": "pets", "workers": 2, **options}
    if imagenet:
        return prepare_imagenet(IngestImagenetParameters(**values))
    return prepare_folder(IngestFolderParameters(**values))


@pytest.fixture
def read_rows(tmp_path):
    """Read a version's rows as dictionaries, in row order; check that the store holds what the version says."""

    def read(version, store="store"):
        table = open_store(tmp_path / store).table(version.table)
        assert verify_version(table, version.number).problems == ()
        return table.read(version, IMAGES_SCHEMA.names).to_pylist()

    return read
