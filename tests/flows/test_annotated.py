"""Annotated datasets by their command lines: in, out, and in again."""

import json

import pytest
from PIL import Image

BOX = {"iscrowd": 0, "area": 12, "segmentation": [[1, 1, 5, 1, 5, 4]], "category_id": 3}


@pytest.fixture
def coco(tmp_path):
    """A small COCO file and its images: one is missing, one box lies outside."""
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in (1, 5, 9)]
    boxes = [{**BOX, "id": n, "image_id": image, "bbox": [x, 1, 4, 3]} for n, image, x in ((1, 1, 1), (2, 5, 50))]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "cat"}], "info": {"year": 1}}
    (tmp_path / "images").mkdir()
    for number in (1, 5):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / "images" / f"{number}.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.prefect
def test_run_ingest_coco_then_exports_then_ingest_yolo(run_apart, coco):
    store = ("--store", coco / "store", "--dataset", "coco")
    code, out, err = run_apart(
        "run", "ingest-coco", *store, "--annotations", coco / "instances.json", "--images", coco / "images"
    )
    assert code == 0, err
    for line in ("missing", "outside"):
        assert line in out
    assert "2, 1 valid, in coco.boxes, version 1" in out
    assert run_apart("run", "export", *store, "--format", "coco", "--out", coco / "back")[0] == 0
    back = json.loads((coco / "back" / "annotations" / "instances_train.json").read_text())
    assert back == json.loads((coco / "instances.json").read_text())
    assert run_apart("run", "export", *store, "--format", "yolo", "--out", coco / "yolo")[0] == 0
    code, out, err = run_apart(
        "run", "ingest-yolo", "--source", coco / "yolo", "--store", coco / "store", "--dataset", "again"
    )
    assert code == 0, err
    code, out, _ = run_apart(
        "sql",
        coco / "store",
        "SELECT image_id, round(x1, 9), round(x2, 9), class_id FROM again.boxes",
        "--format",
        "csv",
    )
    assert out.splitlines()[1:] == ["1.jpg,1.0,5.0,0"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("ingest-coco", "--annotations", "gone.json", "--images", "."), "annotations: no such file"),
        (("ingest-coco", "--annotations", "instances.json", "--images", "gone"), "images: "),
        (("ingest-coco", "--annotations", "instances.json"), "images"),
        (("ingest-voc", "--source", "images"), "source: no folder"),
        (("ingest-yolo", "--source", "gone"), "source: "),
        (("ingest-table", "--table", "gone.csv", "--images", "images"), "table: no such file"),
        (("export", "--format", "csv", "--out", "out"), "no such folder"),
        (("export", "--format", "png", "--out", "out"), "--format: "),
        (("export", "--format", "csv", "--out", "out", "--fraction", "0"), "--fraction: "),
    ],
)
def test_run_bad_parameters_are_refused_at_once_naming_the_field(run, coco, monkeypatch, options, said):
    monkeypatch.chdir(coco)
    code, _, err = run("run", *options, "--store", "store", "--dataset", "coco")
    assert code != 0
    assert said in err
    assert not (coco / "store" / "coco").exists()
