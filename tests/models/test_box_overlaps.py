"""Overlaps by hand and against each other; what suppression keeps does not overlap."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.models.box_overlaps import matched_giou, matched_iou, pairwise_giou, pairwise_iou, suppress_overlaps


def draw_boxes(seed, count, low=0.0):
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random, dtype=torch.float64) * 100
    size = torch.rand(count, 2, generator=random, dtype=torch.float64) * 60 + low
    return torch.cat([corner, corner + size], 1)


ONE = torch.tensor([[0.0, 0, 10, 10]])
CASES = [
    pytest.param([0, 0, 10, 10], 1.0, 1.0, id="same"),
    pytest.param([5, 0, 15, 10], 50 / 150, 50 / 150, id="beside, hull is the union"),
    pytest.param([5, 5, 15, 15], 25 / 175, 25 / 175 - 50 / 225, id="across"),
    pytest.param([20, 0, 30, 10], 0.0, -100 / 300, id="apart"),
    pytest.param([2, 2, 4, 12], 16 / 104, 16 / 104 - 16 / 120, id="sticks out"),
]


@pytest.mark.parametrize(("other", "iou", "giou"), CASES)
def test_iou_and_giou_by_hand(other, iou, giou):
    other = torch.tensor([other], dtype=torch.float32)
    for function, wanted in ((pairwise_iou, iou), (pairwise_giou, giou), (matched_iou, iou), (matched_giou, giou)):
        assert function(ONE, other).item() == pytest.approx(wanted, abs=1e-6), function.__name__


def test_iou_and_giou_two_boxes_without_area_are_numbers():
    points = torch.tensor([[3.0, 3, 3, 3], [9, 9, 9, 9]])
    assert pairwise_iou(points, points).eq(0).all()
    assert matched_iou(points, points.flip(0)).eq(0).all()
    for found in (pairwise_giou(points, points), matched_giou(points, points), matched_giou(points, points.flip(0))):
        assert found.eq(-1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_matched_is_the_diagonal_of_pairwise_and_giou_is_never_above_iou(seed):
    boxes, others = draw_boxes(seed, 12), draw_boxes(seed + 5000, 12)
    torch.testing.assert_close(matched_iou(boxes, others), pairwise_iou(boxes, others).diagonal())
    torch.testing.assert_close(matched_giou(boxes, others), pairwise_giou(boxes, others).diagonal())
    iou, giou = pairwise_iou(boxes, others), pairwise_giou(boxes, others)
    assert ((giou <= iou + 1e-12) & (giou >= -1)).all()
    torch.testing.assert_close(giou, pairwise_giou(others, boxes).T)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), threshold=st.sampled_from([0.0, 0.3, 0.7]))
def test_suppress_overlaps_keeps_no_pair_and_each_that_goes_has_a_better_one(seed, threshold):
    boxes, random = draw_boxes(seed, 40, low=1.0).float(), torch.Generator().manual_seed(seed)
    scores, classes = torch.rand(40, generator=random), torch.randint(0, 2, (40,), generator=random)
    kept = suppress_overlaps(boxes, scores, classes, iou_threshold=threshold, score_threshold=0.2)
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)
    assert (scores[kept] >= 0.2).all()
    same = classes[:, None] == classes[None]
    clashes = (pairwise_iou(boxes, boxes) > threshold) & same
    assert clashes[kept][:, kept].sum() == len(kept)  # each with itself
    gone = [n for n in range(40) if scores[n] >= 0.2 and n not in kept.tolist()]
    assert all((scores[kept][clashes[n, kept]] > scores[n]).any() for n in gone)


def test_suppress_overlaps_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 9, 9]])
    scores = torch.tensor([0.8, 0.9, 0.5, 0.3, float("nan")])
    classes = torch.tensor([0, 0, 1, 0, 1])
    assert suppress_overlaps(boxes, scores, classes).tolist() == [1, 2, 3]
    assert suppress_overlaps(boxes, scores, classes, limit=1).tolist() == [1]
    assert suppress_overlaps(boxes, scores, classes, score_threshold=0.95).tolist() == []
