"""From the boxes table to anchors: every box is taken or counted, and what was done is not done again."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from labelmill.models.anchor_clustering import cluster_anchors
from labelmill.models.box_sizes import best_ious
from labelmill.schemas.boxes import BOXES_SCHEMA
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.parameters import AnchorsParameters, parse_sizes, parse_strides, parse_sweep
from labelmill.tasks.anchors.job import commit_anchors, make_set, prepare_anchors, split_over
from labelmill.tasks.anchors.preflight import check_anchors
from labelmill.tasks.anchors.read_boxes import read_boxes
from labelmill.tasks.anchors.report import write_report
from labelmill.tasks.store import open_store

IMAGES = [{"id": n, "file_name": f"{n}.jpg", "width": 200, "height": 100} for n in range(1, 21)]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 7, "name": "<dog>"}]


def annotate(boxes):
    return [
        {"id": n, "image_id": n % 20 + 1, "category_id": 1, "iscrowd": 0, "area": 1, "segmentation": [], **box}
        for n, box in enumerate(boxes)
    ]


@pytest.fixture
def coco(dataset):
    """A COCO dataset whose images are missing: 60 boxes of cats and dogs, and one odd box of each kind."""
    random = np.random.default_rng(0)
    boxes = [
        {"bbox": [0, 0, *np.round(random.uniform(4, 100, 2), 2).tolist()], "category_id": 1 if n % 3 else 7}
        for n in range(60)
    ]
    odd = [
        {"bbox": [10, 10, 0, 5]}, {"bbox": [300, 10, 5, 5]}, {"bbox": [1, 1, 50, 50], "iscrowd": 1},
        {"bbox": [1, 1, 5, 5], "category_id": 99}, {"bbox": [1, 1, 5, 5], "image_id": 77}, {"bbox": "no"},
    ]  # fmt: skip
    dataset.ingest_coco({"images": IMAGES, "annotations": annotate(boxes + odd), "categories": CATEGORIES})
    dataset.boxes = np.array([box["bbox"] for box in boxes])
    return dataset


@pytest.fixture
def parameters(coco):
    def make(**options):
        return AnchorsParameters(**{"store": str(coco.store), "dataset": "coco", "k": 3, "input_size": 400, **options})

    return make


def cluster(parameters):
    """Run as the flow does; return the run, the version, and how many sets were made."""
    run = prepare_anchors(parameters)
    found = [run.table.receipts.find(wanted.key, run=run.run) for wanted in run.sets]
    receipts = [receipt or make_set(run, wanted) for receipt, wanted in zip(found, run.sets, strict=True)]
    return run, commit_anchors(run, receipts), sum(receipt is None for receipt in found)


def rows_of(coco, table="anchors"):
    return coco.rows(table)


ODD = {"crowd": 1, "malformed": 1, "outside": 1, "unknown_category": 1, "unknown_image": 1, "zero_size": 1}


@pytest.mark.parametrize(
    ("options", "kept", "reasons"),
    [
        ({}, 60, {}),
        ({"crowds": True}, 61, {"crowd": 0}),
        ({"classes": "cat"}, 40, {"other_class": 20}),
        ({"classes": "<dog>,0"}, 60, {}),
        ({"classes": "1"}, 20, {"other_class": 40}),
        ({"split": "train"}, 60, {}),
        ({"min_side_px": 40.0}, None, {}),
        ({"max_side_px": 150.0}, None, {}),
    ],
)
def test_read_boxes_every_box_is_taken_or_counted(coco, parameters, options, kept, reasons):
    found = read_boxes(open_store(coco.store), parameters(**options))
    sides = 2 * coco.boxes[:, 2:]  # letterbox of 200 x 100 in 400 x 400
    if "min_side_px" in options:
        kept = int((sides.min(1) >= 40).sum())
        reasons = {"too_small": 60 - kept}
    if "max_side_px" in options:
        kept = int((sides.max(1) <= 150).sum())
        reasons = {"too_large": 60 - kept}
    wanted = {reason: count for reason, count in {**ODD, **reasons}.items() if count}
    assert (len(found), found.rejected) == (kept, wanted)
    assert len(found) + sum(found.rejected.values()) == 66


def test_read_boxes_sizes_are_the_inputs(coco, parameters):
    store = open_store(coco.store)
    letterbox, stretch = (read_boxes(store, parameters(resize=resize)) for resize in ("letterbox", "stretch"))
    np.testing.assert_allclose(letterbox.sizes, 2 * coco.boxes[:, 2:], rtol=1e-6)
    np.testing.assert_allclose(stretch.sizes, [2, 4] * coco.boxes[:, 2:], rtol=1e-6)
    np.testing.assert_allclose(letterbox.xyxy[:, 1], 100)  # below the bar
    assert letterbox.images.tolist() == [n % 20 for n in range(60)]


def test_read_boxes_files_size_counts_before_what_annotations_say(dataset):
    Image.new("RGB", (100, 100)).save(dataset.images / "1.jpg")
    content = {"images": IMAGES[:2], "annotations": annotate([{"bbox": [0, 0, 50, 50]}] * 2), "categories": CATEGORIES}
    dataset.ingest_coco(content)
    found = read_boxes(
        open_store(dataset.store), AnchorsParameters(store=str(dataset.store), dataset="coco", input_size=400)
    )
    assert found.sizes.tolist() == [[200, 200], [100, 100]]


def test_read_boxes_nothing_left_says_why(parameters, coco):
    with pytest.raises(BadInput, match=r"no box is left to cluster: .*60 too_small"):
        read_boxes(open_store(coco.store), parameters(min_side_px=399.0))


def test_anchors_rows_are_the_clusters_of_the_boxes(coco, parameters):
    _, version, made = cluster(parameters(sweep="1:4", strides="8,16,32", compare="20,20 40,80"))
    assert made == 5
    rows = rows_of(coco)
    assert [(r["k"], r["source"], r["anchor"]) for r in rows] == [
        *((k, "clustered", n) for k in (1, 2, 3, 4) for n in range(k)), (2, "given", 0), (2, "given", 1)
    ]  # fmt: skip
    boxes = (2 * coco.boxes[:, 2:]).astype(np.float32).astype(float)
    wanted = cluster_anchors(boxes, 3)
    three = [r for r in rows if r["k"] == 3]
    np.testing.assert_allclose([(r["w"], r["h"]) for r in three], wanted.sizes)
    np.testing.assert_allclose([(r["w_relative"], r["h_relative"]) for r in three], wanted.sizes / 400)
    assert [r["boxes"] for r in three] == wanted.counts.tolist()
    assert {r["mean_iou"] for r in three} == {wanted.mean_iou}
    assert sum(r["boxes"] * r["cluster_iou"] for r in three) / 60 == pytest.approx(wanted.mean_iou)
    assert [r["stride_px"] for r in three] == [8, 16, 32]
    assert {r["stride_px"] for r in rows if r["k"] != 3} == {None}
    given = [r for r in rows if r["source"] == "given"]
    assert given[0]["mean_iou"] == pytest.approx(best_ious(boxes, np.array([[20.0, 20], [40, 80]]))[0].mean())
    assert {(r["resize"], r["input_width"], r["input_height"], r["boxes_version"]) for r in rows} == {
        ("letterbox", 400, 400, 1)
    }
    assert version.lineage.inputs == {"coco.boxes": 1, "coco.images": 1, "coco.image_entries": 1}
    assert version.metadata["rejected"] == ODD
    assert version.metadata["boxes"] == 60


def test_anchors_input_height_and_width_are_not_swapped(coco, parameters):
    cluster(parameters(k=1, input_size="100x400", resize="stretch"))
    [row] = rows_of(coco)
    assert (row["input_height"], row["input_width"]) == (100, 400)
    assert row["w_relative"] == pytest.approx(row["w"] / 400)


def test_anchors_again_or_with_more_does_only_what_is_new(parameters):
    _, first, made = cluster(parameters(sweep="1:3"))
    _, again, remade = cluster(parameters(sweep="1:3"))
    _, wider, more = cluster(parameters(sweep="1:5"))
    _, other, all_ = cluster(parameters(sweep="1:3", seed=1))
    assert (made, remade, more, all_) == (3, 0, 2, 3)
    assert (first.number, again.number, wider.number, other.number) == (1, 1, 2, 3)
    assert wider.parts[:3] == first.parts


def test_anchors_another_version_of_the_boxes_is_clustered_anew(coco, parameters):
    _, first, _ = cluster(parameters())
    boxes = [{"bbox": [0, 0, n, n]} for n in range(5, 15)]
    coco.ingest_coco({"images": IMAGES, "annotations": annotate(boxes), "categories": CATEGORIES})
    _, second, made = cluster(parameters())
    _, old, remade = cluster(parameters(boxes_version=1))
    assert (made, remade) == (1, 0)
    assert second.metadata["boxes"] == 10
    assert old.parts == first.parts


def test_anchors_rows_name_the_version_that_was_asked_for_also_where_its_boxes_are_the_same(coco, parameters):
    cluster(parameters())
    table = open_store(coco.store).table("coco.boxes")
    first = table.version()
    table.replace(first.parts, schema=BOXES_SCHEMA, metadata={**first.metadata, "splits": {}}, lineage=first.lineage)
    cluster(parameters())
    assert {row["boxes_version"] for row in rows_of(coco)} == {2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "test"}, "split: expected one of train, got 'test'"),
        ({"classes": "cat,cow"}, "classes: no class 'cow' in coco.boxes v1; classes: cat, <dog>"),
        ({"classes": "2"}, "classes: no class '2'"),
        ({"strides": "8,16"}, "strides: 3 anchors cannot be split evenly over 2 strides"),
        ({"strides": "8", "k": 4, "compare": "1,1 2,2"}, None),
        ({"strides": "8,16", "k": 4, "compare": "1,1 2,2 3,3"}, "compare: 3 anchors cannot be split evenly"),
        ({"negative_iou": 0.6}, "negative_iou: 0.6 is above positive_iou 0.5"),
        ({"min_side_px": 9, "max_side_px": 8}, "min_side_px: 9.0 is above max_side_px 8.0"),
        ({"boxes_version": 2}, "coco.boxes: version 2 does not exist"),
    ],
)
def test_check_anchors_what_does_not_fit_is_refused_by_name(parameters, options, words):
    if words is None:
        check_anchors(parameters(**options))
        return
    with pytest.raises((BadInput, NotInStore), match=re.escape(words)):
        check_anchors(parameters(**options))


@pytest.mark.parametrize("options", [{"k": 61}, {"sweep": "1:61"}])
def test_prepare_anchors_more_anchors_than_sizes_is_refused_by_name(parameters, options):
    field = next(iter(options))
    with pytest.raises(BadInput, match=f"{field}: 61 anchors need at least as many different box sizes, got 60"):
        prepare_anchors(parameters(**options))


def test_parse_sweep_strides_and_sizes():
    assert parse_sweep("2:4") == (2, 3, 4)
    assert parse_strides("32, 8,16") == (8, 16, 32)
    assert parse_sizes("10,13  16.5,30, 33, 23") == ((10, 13), (16.5, 30), (33, 23))


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_sweep, "4:2"), (parse_sweep, "0:2"), (parse_sweep, "1:999"), (parse_sweep, "9"),
        (parse_strides, "8,8"), (parse_strides, "0"), (parse_strides, "8;16"), (parse_strides, ""),
        (parse_sizes, "10"), (parse_sizes, "10,13 16"), (parse_sizes, ""), (parse_sizes, "0,5"), (parse_sizes, "a,b"),
    ],
)  # fmt: skip
def test_parse_what_is_no_such_text_is_refused(parse, text):
    with pytest.raises(BadInput, match=re.escape(f"{text!r}: expected")):
        parse(text)


def test_split_over_smallest_anchors_go_to_the_finest_stride():
    assert split_over("16,8", 4) == [8, 8, 16, 16]
    assert split_over("8,16", 3) == [None] * 3
    assert split_over(None, 1) == [None]


def test_write_report_page_tables_and_texts_lie_beside_the_version(coco, parameters, tmp_path):
    given = parameters(sweep="1:4", strides="8,16,32", compare="20,20 40,80 90,90")
    run, version, _ = cluster(given)
    report = write_report(run, version, report=str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    for words in (
        "&lt;dog&gt;",
        "What anchors would learn",
        "those given as rings",
        "zero_size",
        "YOLOAnchorGenerator",
    ):
        assert words in page
    assert "<dog>" not in page
    assert "<script" not in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len([ET.fromstring(drawing) for drawing in drawings]) == 3
    assert drawings[0].count("<rect") == 3
    assert {row["class_name"]: row["boxes"] for row in rows_of(coco, "anchors_classes")} == {"cat": 40, "<dog>": 20}
    positives = rows_of(coco, "anchors_positives")
    assert {(r["source"], r["rule"]) for r in positives} == {
        (s, r) for s in ("clustered", "given") for r in ("iou", "atss")
    }
    assert sum(r["boxes"] for r in positives) == 4 * 60
    folder = coco.store / "coco/anchors/reports"
    assert sorted(path.name for path in folder.iterdir()) == [
        "v1.darknet.cfg", "v1.mmdetection.py", "v1.torchvision.py", "v1.ultralytics.yaml",
    ]  # fmt: skip
    assert report.facts["k = 4"] > report.facts["k = 1"]
    assert json.loads(json.dumps(report.facts)) == report.facts


def test_write_report_without_strides_has_no_positives(coco, parameters):
    run, version, _ = cluster(parameters(k=1))
    write_report(run, version, report=None)
    assert "What anchors would learn" not in (coco.store / "coco/anchors/reports/v1.html").read_text()
    assert "coco.anchors_positives" not in open_store(coco.store).tables()
