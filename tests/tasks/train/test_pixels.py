"""Pixels of training images, from memory and from files."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tests.tasks.train.trained import CLASSES, ingest

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.store import open_store
from labelmill.tasks.train import pixels
from labelmill.tasks.train.examples import Examples, read_examples
from labelmill.tasks.train.pixels import FilePixels, count_bytes, decode_all, fits_memory

SIZES = {"a.png": (16, 12), "b.jpg": (20, 30), "c.png": (7, 9)}


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "files").mkdir()
    for name, (width, height) in SIZES.items():
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / "files" / name)
    return tmp_path / "files"


@pytest.fixture
def examples(files, tmp_path):
    version = ingest(files, tmp_path / "store", labels="none")
    images = open_store(tmp_path / "store").table("colours.images")
    classes = ClassList(classes=tuple(ClassName(name=name) for name in CLASSES), source="test")
    return read_examples(images, version, split="train", image_root=None, classes=classes)


def with_column(examples, name, values):
    place = examples.rows.column_names.index(name)
    column = pa.array(values, examples.rows.schema.field(name).type)
    rows = examples.rows.set_column(place, examples.rows.schema.field(name), column)
    given = {name: getattr(examples, name) for name in Examples.__dataclass_fields__}
    return Examples(**{**given, "rows": rows})


def test_decode_all_gives_what_the_files_hold_also_in_another_process(examples, files):
    whole, packed, lost = decode_all(examples, max_pixels=10**6)
    source = FilePixels(examples, max_pixels=10**6)
    assert (whole.ids(), lost) == (list(SIZES), {})
    for place, name in enumerate(SIZES):
        expected = np.asarray(Image.open(files / name))
        assert np.array_equal(packed.read(place), expected)
        assert np.array_equal(pickle.loads(pickle.dumps(packed)).read(place), expected)
        assert np.array_equal(source.read(place), expected)


def test_decode_all_leaves_out_and_counts_what_cannot_be_read(examples, files):
    (files / "a.png").unlink()
    (files / "b.jpg").write_bytes((files / "b.jpg").read_bytes()[:-1] + b"x")
    told = []
    whole, packed, lost = decode_all(examples, max_pixels=10**6, on_images=lambda *counts: told.append(counts))
    assert (whole.ids(), lost) == (["c.png"], {"missing": 1, "changed": 1})
    assert np.array_equal(packed.read(0), np.asarray(Image.open(files / "c.png")))
    assert sorted(told) == [(1, 0), (1, 1), (1, 1)]


@pytest.mark.parametrize("name", ["a.png", "b.jpg"])
def test_read_image_of_too_many_pixels_is_left_out_whatever_its_format(examples, name):
    place, (width, height) = examples.ids().index(name), SIZES[name]
    assert FilePixels(examples, max_pixels=width * height).read(place).shape == (height, width, 3)
    with pytest.raises(RejectedImage, match="too_many_pixels"):
        FilePixels(examples, max_pixels=width * height - 1).read(place)


def test_decode_all_image_that_grew_unseen_is_left_out(examples):
    known = with_column(examples, "height", [3, 30, 9])  # as if another content of that length had come
    whole, _, lost = decode_all(known, max_pixels=10**6)
    assert (whole.ids(), lost) == (["b.jpg", "c.png"], {"changed": 1})


def test_fits_memory_sizes_that_ingest_did_not_read_are_not_taken_for_none(examples):
    unknown = with_column(with_column(examples, "height", [None] * 3), "width", [None] * 3)
    assert count_bytes(unknown) is None
    assert not fits_memory(unknown, cache_mb=1000)
    assert FilePixels(unknown, max_pixels=10**6).read(0).shape == (12, 16, 3)


def test_fits_memory_goes_by_the_limit_and_by_what_processes_can_share(examples, monkeypatch, tmp_path):
    assert count_bytes(examples) == 3 * (16 * 12 + 20 * 30 + 7 * 9)
    assert fits_memory(examples, cache_mb=1)
    assert not fits_memory(examples, cache_mb=0)
    monkeypatch.setattr(pixels, "_SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert not fits_memory(examples, cache_mb=1)
