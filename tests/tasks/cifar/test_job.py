"""CIFAR in all four releases: the same pictures and labels, read where they lie."""

import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestCifarParameters
from labelmill.tasks.cifar.job import prepare_cifar
from labelmill.tasks.cifar.pickled_arrays import PickledArray, Stretch, read_pickle
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk
from labelmill.tasks.store import open_store

PLANES = np.random.default_rng(0).integers(0, 256, (7, 3072), np.uint8)
FINE = [3, 0, 1, 1, 2, 0, 3]
COARSE = [1, 0, 0, 0, 1, 0, 1]
NAMES = ["apple", "bear", "cloud", "dolphin"]
GROUPS = ["food", "animal"]


def python_2_pickle(record):
    """The bytes that cPickle of Python 2 wrote for a dictionary with an array, as the released files have it."""

    def text(value):
        data = value.encode("latin-1") if isinstance(value, str) else value
        if len(data) < 256:
            return b"U" + bytes([len(data)]) + data
        return b"T" + len(data).to_bytes(4, "little") + data

    def number(value):
        return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")

    def any_value(value):
        if isinstance(value, np.ndarray):
            shape = b"".join(number(n) for n in value.shape) + b"\x86"
            ends = b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
            dtype = b"cnumpy\ndtype\nq\x07U\x02u1K\x00K\x01\x87Rq\x08(K\x03U\x01|" + ends
            head = b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87Rq\x06"
            return head + b"(K\x01" + shape + dtype + b"\x89" + text(value.tobytes()) + b"tb"
        if isinstance(value, list):
            items = b"".join(any_value(item) for item in value)
            return b"]q\x09(" + items + b"e"
        return number(value) if isinstance(value, int) else text(value)

    body = b"".join(text(key) + any_value(value) for key, value in record.items())
    return b"\x80\x02}q\x01(" + body + b"u."


def modern_pickle(protocol):
    return lambda record: pickle.dumps({key.encode(): value for key, value in record.items()}, protocol)


def write_binary(folder, *, hundred):
    files = {"test_batch.bin": PLANES[:2], "data_batch_1.bin": PLANES[2:5], "data_batch_2.bin": PLANES[5:]}
    if hundred:
        files = {"test.bin": PLANES[:2], "train.bin": PLANES[2:]}
    at = 0
    folder.mkdir()
    for name, planes in files.items():
        labels = [FINE[at : at + len(planes)]]
        if hundred:
            labels.insert(0, COARSE[at : at + len(planes)])
        columns = [np.array(column, np.uint8)[:, None] for column in labels]
        (folder / name).write_bytes(np.hstack([*columns, planes]).tobytes())
        at += len(planes)
    if hundred:
        (folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n")
        (folder / "coarse_label_names.txt").write_text("\n".join(GROUPS) + "\n")
    else:
        (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def write_python(folder, dump, *, hundred):
    files = {"test_batch": slice(0, 2), "data_batch_1": slice(2, 5), "data_batch_2": slice(5, 7)}
    if hundred:
        files = {"test": slice(0, 2), "train": slice(2, 7)}
    folder.mkdir()
    for name, part in files.items():
        labels = {"fine_labels": FINE[part], "coarse_labels": COARSE[part]} if hundred else {"labels": FINE[part]}
        record = {"batch_label": name, **labels, "data": PLANES[part], "filenames": [f"x{n}.png" for n in FINE[part]]}
        (folder / name).write_bytes(dump(record))
    names = {"fine_label_names": NAMES, "coarse_label_names": GROUPS} if hundred else {"label_names": NAMES}
    (folder / ("meta" if hundred else "batches.meta")).write_bytes(dump(names))
    return folder


RELEASES = {
    "binary": write_binary,
    "python 2": lambda folder, hundred: write_python(folder, python_2_pickle, hundred=hundred),
    "protocol 3": lambda folder, hundred: write_python(folder, modern_pickle(3), hundred=hundred),
    "protocol 4": lambda folder, hundred: write_python(folder, modern_pickle(4), hundred=hundred),
}


@pytest.fixture
def ingest(tmp_path):
    def run(source, **options):
        parameters = IngestCifarParameters(
            source=str(source), store=str(tmp_path / "store"), dataset="cifar", workers=2, **options
        )
        for prepared in prepare_cifar(parameters):
            version = commit_ingest(prepared, [ingest_chunk(prepared, chunk) for chunk in prepared.chunks])
        rows = open_store(tmp_path / "store").table("cifar.images").read(version, IMAGES_SCHEMA.names).to_pylist()
        return version, rows

    return run


def pixels_of(version, row):
    data = read_bytes(f"{version.metadata['roots'][row['split']]}/{row['uri']}", max_bytes=10**4)
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("labels", ["ten", "fine", "coarse"])
@pytest.mark.parametrize("release", RELEASES)
def test_prepare_cifar_every_release_gives_its_pictures_and_labels(tmp_path, ingest, release, labels, packed):
    source = RELEASES[release](tmp_path / "cifar", hundred=labels != "ten")
    if packed:
        with tarfile.open(tmp_path / "cifar.tar", "w") as tar:
            tar.add(source, "cifar-batches")
        source = tmp_path / "cifar.tar"
    version, rows = ingest(source, labels="coarse" if labels == "coarse" else "fine")
    expected = COARSE if labels == "coarse" else FINE
    rows.sort(key=lambda row: row["split"] == "train")  # tests come first in what was written
    assert [row["label"] for row in rows] == expected
    assert [row["split"] for row in rows] == ["test"] * 2 + ["train"] * 5
    for row, planes in zip(rows, PLANES, strict=True):
        assert (row["status"], row["width"], row["height"], row["mode"]) == ("done", 32, 32, "RGB")
        np.testing.assert_array_equal(pixels_of(version, row), planes.reshape(3, 32, 32).transpose(1, 2, 0))
    names = [c["name"] for c in version.metadata["classes"]["classes"]]
    assert names == (GROUPS if labels == "coarse" else NAMES)
    assert ingest(source, labels="coarse" if labels == "coarse" else "fine")[0] == version


def test_prepare_cifar_label_that_names_no_class_is_a_rejected_row(tmp_path, ingest):
    folder = write_binary(tmp_path / "cifar", hundred=False)
    data = bytearray((folder / "test_batch.bin").read_bytes())
    data[0] = 200
    (folder / "test_batch.bin").write_bytes(data)
    _, rows = ingest(folder, split="test")
    assert [(row["reason"], row["detail"]) for row in rows] == [
        ("no_label", "expected a label from 0 to 3"), (None, None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "test_batch.bin").write_bytes(b"x" * 3072), "expected records of 3073 bytes, got 3072"),
        (lambda f: (f / "test_batch.bin").write_bytes(b""), "expected records of 3073 bytes, got 0"),
        (lambda f: (f / "batches.meta.txt").unlink(), "expected batches.meta.txt or batches.meta beside"),
        (lambda f: (f / "batches.meta.txt").write_text("a\na\n"), "expected names of classes"),
        (lambda f: (f / "data_batch_1").write_bytes(b"x"), "the binary and the python version lie in one folder"),
        (lambda f: [p.unlink() for p in f.iterdir()], "expected data_batch_1.bin"),
    ],
)
def test_prepare_cifar_damaged_release_is_refused_naming_the_file(tmp_path, ingest, damage, said):
    folder = write_binary(tmp_path / "cifar", hundred=False)
    damage(folder)
    with pytest.raises(BadInput, match=said):
        ingest(folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "val"}, "expected train, test or auto"),
        ({"labels": "coarse"}, "CIFAR-10 has no coarse labels"),
    ],
)
def test_prepare_cifar_parameters_that_do_not_fit_are_refused(tmp_path, ingest, options, said):
    with pytest.raises(BadInput, match=said):
        ingest(write_binary(tmp_path / "cifar", hundred=False), **options)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was run')",))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_read_pickle_runs_nothing_that_a_pickle_names(protocol):
    found = read_pickle(pickle.dumps({"data": Bomb(), "n": [1, 2]}, protocol), "bomb")
    assert found["n"] == [1, 2]
    assert "exec" in str(found["data"])


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_read_pickle_finds_the_array_where_it_lies(protocol):
    data = pickle.dumps({"data": PLANES, "turned": np.asfortranarray(PLANES), "wide": PLANES.astype(int)}, protocol)
    found = read_pickle(data, "x")
    if protocol < 5:
        assert isinstance(found["data"], PickledArray)
        stretch = found["data"].stretch
        assert data[stretch.offset : stretch.offset + stretch.length] == PLANES.tobytes()
        assert found["data"].shape == PLANES.shape
    assert not isinstance(found["turned"], PickledArray)
    assert not isinstance(found["wide"], PickledArray)


@pytest.mark.parametrize("cut", [0, 1, 20, 3000, -1])
def test_read_pickle_cut_or_foreign_is_refused_with_its_name(cut):
    data = python_2_pickle({"labels": [1], "data": PLANES})
    for damaged in (data[:cut], b"no pickle" + data):
        with pytest.raises(BadInput, match=r"^batch: "):
            read_pickle(damaged, "batch")


def test_read_pickle_keeps_long_strings_by_their_place():
    data = pickle.dumps({"x": b"y" * 5000}, 4)
    stretch = read_pickle(data, "x")["x"]
    assert isinstance(stretch, Stretch)
    assert data[stretch.offset : stretch.offset + stretch.length] == b"y" * 5000
