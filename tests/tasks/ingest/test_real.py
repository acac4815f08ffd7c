"""ReaL's lists become the column labels of ImageNet's validation images."""

import json

import pytest

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestImagenetParameters
from labelmill.tasks.ingest.devkit import Devkit
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_imagenet
from labelmill.tasks.ingest.list_files import FileKind, ListedFile
from labelmill.tasks.ingest.real import read_real
from labelmill.tasks.preflight import check_parameters
from labelmill.tasks.store import open_store

WNIDS = ("n01440764", "n01443537", "n01484850")
DEVKIT = Devkit(
    classes=ClassList(classes=tuple(ClassName(name=w, wnid=w) for w in WNIDS), source="test"), labels=(2, 0, 1)
)


def listed(*paths):
    return [ListedFile(path=path, size=1, mtime_ns=1, kind=FileKind.FILE) for path in paths]


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "real.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


def test_read_real_gives_each_validation_image_its_classes(write):
    files = listed("ILSVRC2012_val_00000001.JPEG", "n01443537/ILSVRC2012_val_00000003.JPEG", "other.JPEG")
    assert read_real(write([[0, 2], [1], []]), files, DEVKIT) == {
        "ILSVRC2012_val_00000001.JPEG": ["n01440764", "n01484850"], "n01443537/ILSVRC2012_val_00000003.JPEG": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[[0", "expected JSON"),
        ({"a": 1}, "a list of lists"),
        ([[0], ["1"], [2]], "a list of lists"),
        ([[0], [True], [2]], "a list of lists"),
        ([[0]], "each of the devkit's 3 images, got 1"),
        ([[3], [1], [1]], "image 1: expected class indices below 3, got 3"),
    ],
)
def test_read_real_what_does_not_fit_is_refused(write, content, words):
    with pytest.raises(BadInput, match=words):
        read_real(write(content), listed("ILSVRC2012_val_00000001.JPEG"), DEVKIT)


def test_read_real_without_validation_images_or_devkit_is_refused(write, tmp_path):
    with pytest.raises(BadInput, match="no file of the source is named"):
        read_real(write([[0], [1], [2]]), listed("n01443537/n01443537_1.JPEG"), DEVKIT)
    with pytest.raises(BadInput, match="give --devkit too"):
        read_real(write([]), [], None)
    parameters = IngestImagenetParameters(source=str(tmp_path), store="/s", dataset="imagenet", real=write([]))
    with pytest.raises(BadInput, match="real: needs --devkit"):
        check_parameters(parameters)


@pytest.mark.sample_data
def test_ingest_imagenet_real_labels_of_the_true_devkit(sample_data, tmp_path, jpeg):
    for number in (1, 2, 3, 22):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG").write_bytes(jpeg)
    run = prepare_imagenet(
        IngestImagenetParameters(
            source=str(tmp_path / "val"), store=str(tmp_path / "store"), dataset="imagenet", split="val",
            devkit=str(sample_data / "imagenet/devkit"), real=str(sample_data / "imagenet/real.json"),
        )
    )  # fmt: skip
    commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])
    with open_store(tmp_path / "store").connect() as sql:
        rows = sql.execute("SELECT label, labels FROM imagenet.images ORDER BY image_id").fetchall()
        accuracy = sql.execute("SELECT real_accuracy(label, labels) FROM imagenet.images").fetchall()
    assert rows == [(65, []), (970, [795, 970]), (230, [230, 231]), (rows[3][0], [])]
    assert accuracy == [(1.0,)]
