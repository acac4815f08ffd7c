"""SVHN: digits of MATLAB files become PNG files, and the files rows."""

import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestSvhnParameters
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk
from labelmill.tasks.store import open_store
from labelmill.tasks.svhn.digits import find_svhn_files, read_digits
from labelmill.tasks.svhn.job import prepare_svhn, write_digits
from labelmill.tasks.written.file_tree import FileTree

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 70), np.uint8)
LABELS = np.array([10, *([1, 2, 3] * 23)])


def write_mat(path, pixels=PIXELS, labels=LABELS, **others):
    arrays = {"X": pixels, "y": labels.astype(np.uint8)[:, None], **others}
    scipy.io.savemat(path, {name: value for name, value in arrays.items() if value is not None}, do_compression=True)
    return path


@pytest.fixture
def ingest(tmp_path):
    def run(source, **options):
        given = {"source": str(source), "store": str(tmp_path / "store"), "out": str(tmp_path / "out"), **options}
        parameters = IngestSvhnParameters(**given, dataset="svhn", workers=2)
        counts = []
        for split, path in find_svhn_files(parameters.source, parameters.split).items():
            digits = read_digits(path)
            with FileTree(parameters.out) as tree:
                files = write_digits(digits, split, tree, on_batch=lambda *batch: counts.append(batch))
            prepared = prepare_svhn(parameters.model_copy(update={"split": split}), files, digits)
            version = commit_ingest(prepared, [ingest_chunk(prepared, chunk) for chunk in prepared.chunks])
        rows = open_store(tmp_path / "store").table("svhn.images").read(version, IMAGES_SCHEMA.names).to_pylist()
        return version, rows, np.array(counts).sum(0).tolist()

    return run


def test_write_digits_files_have_the_pixels_and_ten_means_zero(tmp_path, ingest):
    version, rows, counts = ingest(write_mat(tmp_path / "train_32x32.mat"))
    assert counts == [70, 0]
    assert [row["label"] for row in rows] == (LABELS % 10).tolist()
    assert rows[69]["uri"] == "train/000/000069.png"
    assert {(row["split"], row["status"], row["format"]) for row in rows} == {("train", "done", "png")}
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / row["uri"])), PIXELS[..., number])
    assert [c["name"] for c in version.metadata["classes"]["classes"]] == list("0123456789")


def test_write_digits_again_writes_only_what_is_not_there(tmp_path, ingest):
    source = write_mat(tmp_path / "train_32x32.mat")
    first, *_ = ingest(source)
    (tmp_path / "out/train/000/000003.png").unlink()
    Image.fromarray(PIXELS[..., 5]).save(tmp_path / "out/train/000/000005.png", compress_level=0)  # another encoder
    second, rows, counts = ingest(source)
    assert counts == [1, 69]
    assert len(rows) == first.rows
    assert ingest(source)[0] == second


def test_write_digits_never_replaces_what_is_there(tmp_path, ingest):
    place = tmp_path / "out/train/000/000003.png"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    with pytest.raises(BadInput, match=r"^out: .*000003\.png: a file with other pixels is there; nothing is replaced"):
        ingest(write_mat(tmp_path / "train_32x32.mat"))
    assert place.read_bytes() == b"mine"


def test_find_svhn_files_of_a_folder_are_its_splits(tmp_path, ingest):
    for split in ("train", "test", "extra"):
        write_mat(tmp_path / f"{split}_32x32.mat", PIXELS[..., :3], LABELS[:3])
    (tmp_path / "train.mat").write_bytes(b"")
    assert list(find_svhn_files(str(tmp_path), "auto")) == ["extra", "test", "train"]
    _, rows, _ = ingest(tmp_path)
    assert [row["split"] for row in rows] == ["extra"] * 3 + ["test"] * 3 + ["train"] * 3
    with pytest.raises(BadInput, match=r"expected val_32x32\.mat"):
        find_svhn_files(str(tmp_path), "val")


def test_read_digits_label_out_of_range_is_a_rejected_row(tmp_path, ingest):
    labels = LABELS[:3].copy()
    labels[1] = 11
    _, rows, _ = ingest(write_mat(tmp_path / "test_32x32.mat", PIXELS[..., :3], labels))
    assert [row["reason"] for row in rows] == [None, "no_label", None]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"no MATLAB file" * 100), "not a MATLAB file"),
        (lambda path: path.write_bytes(b""), "not a MATLAB file"),
        (lambda path: os.truncate(write_mat(path), 5000), "expected X of 32x32x3xN and y of N labels"),
        (lambda path: os.truncate(write_mat(path), path.stat().st_size - 9), "not a MATLAB file"),
        (lambda path: write_mat(path, PIXELS[..., :3]), "as many labels as images"),
        (lambda path: write_mat(path, None), "expected X of 32x32x3xN"),
        (lambda path: write_mat(path, PIXELS[:16]), "expected X of 32x32x3xN"),
        (lambda path: write_mat(path, PIXELS.astype(np.float32)), "expected X of uint8"),
    ],
)
def test_read_digits_of_something_else_is_refused_naming_the_file(tmp_path, make, said):
    path = tmp_path / "train_32x32.mat"
    make(path)
    with pytest.raises(BadInput, match=rf"train_32x32\.mat: .*{said}"):
        read_digits(str(path))
