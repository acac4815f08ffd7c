"""How well anchors fit classes, and what they would learn, by hand."""

import numpy as np
import pytest
import torch

from labelmill.schemas.parameters import AnchorsParameters
from labelmill.tasks.anchors.measures import Positives, count_by_size, draw_images, learn_positives, measure_classes
from labelmill.tasks.anchors.read_boxes import InputBoxes


def make_boxes(xyxy, images, class_ids=None):
    xyxy = np.array(xyxy, float)
    class_ids = np.zeros(len(xyxy), int) if class_ids is None else np.array(class_ids)
    return InputBoxes(
        xyxy=xyxy, sizes=xyxy[:, 2:] - xyxy[:, :2], class_ids=class_ids, images=np.array(images), versions=(),
        rejected={},
    )  # fmt: skip


def test_measure_classes_by_hand():
    boxes = make_boxes([[0, 0, 10, 10], [0, 0, 5, 10], [0, 0, 1, 100], [0, 0, 10, 10]], [0] * 4, [1, 1, -1, 0])
    rows = measure_classes(boxes, np.array([[10.0, 10]]), None).to_pylist()
    assert [(r["class_id"], r["boxes"]) for r in rows] == [(0, 1), (1, 2), (None, 1)]
    assert [r["mean_iou"] for r in rows] == pytest.approx([1, 0.75, 10 / 190])
    assert [r["best_possible_recall"] for r in rows] == [1, 1, 0]


def test_draw_images_the_same_each_time_and_whole():
    boxes = make_boxes([[0, 0, 1, 1]] * 40, [n % 10 for n in range(40)])
    drawn = draw_images(boxes, 4, seed=0)
    assert len(drawn) == 4
    for group, again in zip(drawn, draw_images(boxes, 4, seed=0), strict=True):
        assert group.tolist() == again.tolist()
        assert len(group) == 4
        assert len(set(boxes.images[group])) == 1
    assert len(draw_images(boxes, 99, seed=0)) == 10


def test_learn_positives_a_box_on_an_anchor_is_learned_and_a_tiny_one_only_by_its_best():
    # cells of 32 in 64 x 64: an anchor stands at 0…32; a box of 2 pixels overlaps those of all four cells or one
    boxes = make_boxes([[0, 0, 32, 32], [40, 40, 42, 42]], [0, 0])
    cores = torch.get_num_threads()
    given = AnchorsParameters(store="/s", dataset="coco", k=1, input_size=64, strides="32")
    found = learn_positives(boxes, np.array([[32.0, 32]]), given)
    assert torch.get_num_threads() == cores
    assert found.counts["iou"].tolist() == [1, 1]
    assert found.counts["atss"].tolist() == [1, 0]
    rows = count_by_size(found, "clustered").to_pylist()
    assert [(r["rule"], r["from_px"], r["to_px"], r["boxes"], r["positives"], r["without"]) for r in rows] == [
        ("iou", 0, 8, 1, 1, 0), ("iou", 32, 64, 1, 1, 0), ("atss", 0, 8, 1, 0, 1), ("atss", 32, 64, 1, 1, 0),
    ]  # fmt: skip


def test_count_by_size_each_box_counts_once():
    sizes = np.array([0.5, 8, 15.9, 16, 300, 5000])
    rows = count_by_size(Positives(sizes_px=sizes, counts={"iou": np.arange(6)}), "given").to_pylist()
    assert [(r["from_px"], r["to_px"], r["boxes"], r["positives"]) for r in rows] == [
        (0, 8, 1, 0), (8, 16, 2, 3), (16, 32, 1, 3), (256, None, 2, 9),
    ]  # fmt: skip
    assert rows[1]["positives_a_box"] == 1.5
