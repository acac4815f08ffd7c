"""What the tests of relabel share."""

import hashlib
from dataclasses import fields

import pytest

from labelmill.models.label_encoding import EncodedMap
from labelmill.models.teacher import load_teacher
from labelmill.tasks import stop
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.settings import RelabelSettings


@pytest.fixture(scope="session")
def teacher(tiny_teacher):
    return load_teacher(tiny_teacher.name, weights=tiny_teacher.weights, classes=tiny_teacher.classes)


@pytest.fixture
def settings():
    return RelabelSettings(input_size=(64, 96), top_k=3, batch_size=4, max_pixels=1_000_000)


@pytest.fixture
def photos(tmp_path, make_images):
    """Thirteen images: no multiple of a batch of four."""
    root = make_images(tmp_path / "train", {"n01443537": 7, "n01484850": 6})
    return [_as_ingested(path) for path in sorted(root.rglob("*.JPEG"))]


@pytest.fixture
def imagenet(tmp_path, make_images, ingest):
    """A folder of 21 images in two of the teacher's classes, ingested in parts of 13; return (source, store)."""
    source = make_images(tmp_path / "train", {"n01443537": 11, "n01484850": 10})
    ingest(source, tmp_path / "store", chunk_size=13)
    return source, tmp_path / "store"


@pytest.fixture
def asked_to_stop():
    stop.ask_to_stop()
    yield
    stop._asked.clear()


@pytest.fixture
def as_ingested():
    return _as_ingested


@pytest.fixture
def bytes_of():
    """All that is stored of labelled images, for comparison."""

    def each(labelled):
        arrays = [[getattr(r.map, f.name).tobytes() for f in fields(EncodedMap)] if r.map else [] for r in labelled]
        rest = [(r.pooled_class, r.pooled_prob, r.reason, r.detail) for r in labelled]
        return list(zip(arrays, rest, strict=True))

    return each


def _as_ingested(path):
    data = path.read_bytes()
    return ImageToLabel(path=path, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
