"""Anchors by the command line, under Prefect."""

import json

import pytest
from tests.flows.told import facts


@pytest.fixture
def coco(tmp_path):
    """A store with twelve boxes of different sizes in images that are not there."""
    boxes = [
        {"id": n, "image_id": 1, "category_id": 3, "bbox": [n, n, 8 + 9 * n, 5 + 7 * n], "area": 1, "iscrowd": 0,
         "segmentation": []}
        for n in range(1, 13)
    ]  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 200, "height": 200}],
        "annotations": [*boxes, {**boxes[0], "id": 99, "iscrowd": 1}],
        "categories": [{"id": 3, "name": "cat"}],
    }
    (tmp_path / "images").mkdir()
    (tmp_path / "images/other.txt").write_text("no image")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.prefect
def test_run_anchors_tells_and_writes_what_it_found(coco, run_apart):
    given = ("--store", coco / "store", "--dataset", "coco")
    code, _, err = run_apart(
        "run", "ingest-coco", *given, "--annotations", coco / "instances.json", "--images", coco / "images"
    )
    assert code == 0, err
    options = ("--k", 3, "--input-size", 416, "--resize", "letterbox", "--sweep", "1:4", "--strides", "8,16,32")
    code, out, err = run_apart("run", "anchors", *given, *options, "--report", coco / "page.html")
    assert code == 0, err
    told = facts(out)
    assert (told["boxes"], told["done"], told["crowd"], told["table"]) == ("13", "12", "1", "coco.anchors, version 1")
    assert len(told["anchors"].split("  ")) == 3
    assert float(told["k = 1"]) < float(told["k = 3"]) == float(told["mean best IoU"]) < float(told["k = 4"])
    assert "3 anchors of coco, all splits" in (coco / "page.html").read_text()
    query = "SELECT k, count(*), sum(boxes) FROM coco.anchors GROUP BY k ORDER BY k"
    _, out, _ = run_apart("sql", coco / "store", query, "--format", "csv")
    assert out.splitlines()[1:] == ["1,1,12", "2,2,12", "3,3,12", "4,4,12"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--k", 0), "--k: "),
        (("--k=300",), "--k: "),
        (("--sweep", "5"), "--sweep: '5': expected the first and the last number"),
        (("--resize", "crop"), "--resize: "),
        (("--input-size", "4x"), "--input-size: "),
        (("--strides", "8,8"), "--strides: '8,8': expected strides"),
        (("--compare", "1"), "--compare: '1': expected widths and heights"),
        (("--min-side-px", "nan"), "--min-side-px: "),
        ((), "no such folder"),
    ],
)
def test_run_anchors_wrong_parameters_are_refused_at_once_by_name(tmp_path, run, options, words):
    code, out, err = run("run", "anchors", "--store", tmp_path / "gone", "--dataset", "coco", *options)
    assert (code, out) == (2, "")
    assert words in err
