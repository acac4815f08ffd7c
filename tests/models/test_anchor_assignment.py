"""Assignments by hand, against torchvision's matcher and against a plain loop over the paper's algorithm."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.models.anchor_assignment import (
    IGNORED,
    NEGATIVE,
    assign_by_atss,
    assign_by_iou,
    count_positives,
)
from labelmill.models.anchor_grid import place_anchors, place_pyramid
from labelmill.models.box_overlaps import pairwise_iou
from labelmill.schemas.errors import BadInput


def draw_truths(seed, count, span=128.0):
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=random, dtype=torch.float64) * span
    half = torch.rand(count, 2, generator=random, dtype=torch.float64) * span / 4 + 1
    return torch.cat([centre - half, centre + half], 1)


def make_pyramid():
    sizes = torch.tensor([[10.0, 14], [30, 20], [40, 60], [100, 90]], dtype=torch.float64)
    return place_pyramid(sizes, input_size=(128, 128), strides_px=(8, 32))


def test_assign_by_iou_by_hand():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.5], [0, 0, 10, 3], [50, 50, 60, 60]])
    truths = torch.tensor([[0.0, 0, 10, 10], [58, 58, 70, 70], [90, 90, 99, 99]])
    assert assign_by_iou(anchors, truths).tolist() == [0, 0, IGNORED, NEGATIVE, 1]
    assert assign_by_iou(anchors, truths, best_anchor=False).tolist() == [0, 0, IGNORED, NEGATIVE, NEGATIVE]


def test_assign_by_iou_two_objects_with_one_best_anchor_both_get_one():
    anchors = torch.tensor([[0.0, 0, 10, 10], [9, 9, 12, 12]])
    truths = torch.tensor([[0.0, 0, 10, 10.5], [0, 0, 11, 11]])
    assert assign_by_iou(anchors, truths).tolist() == [0, 1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 12), positive=st.sampled_from([0.3, 0.5, 0.7]))
def test_assign_by_iou_any_objects_each_that_is_overlapped_has_an_anchor(seed, count, positive):
    anchors, _ = make_pyramid()
    truths = draw_truths(seed, count)
    assigned = assign_by_iou(anchors, truths, positive=positive, negative=0.2)
    iou = pairwise_iou(truths, anchors)
    counts = count_positives(assigned, count)
    assert counts.shape == (count,)
    assert counts.sum() == (assigned >= 0).sum()
    if not count:
        assert (assigned == NEGATIVE).all()
        return
    assert (counts >= 1).equal((iou > 0).any(1))
    plain = assign_by_iou(anchors, truths, positive=positive, negative=0.2, best_anchor=False)
    highest, which = iou.max(0)
    assert (plain >= 0).equal(highest >= positive)
    assert plain[plain >= 0].equal(which[plain >= 0])
    assert (plain == NEGATIVE).equal(highest < 0.2)
    assert (assigned != plain).sum() <= count


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12))
def test_assign_by_iou_without_best_anchors_is_torchvisions_matcher(seed, count):
    from torchvision.models.detection._utils import Matcher

    anchors, _ = make_pyramid()
    truths = draw_truths(seed, count)
    peer = Matcher(0.5, 0.4)(pairwise_iou(truths, anchors))
    assert assign_by_iou(anchors, truths, best_anchor=False).equal(peer)


def test_assign_by_iou_thresholds_out_of_order_are_refused():
    with pytest.raises(BadInput, match=r"negative 0\.6 and positive 0\.5"):
        assign_by_iou(torch.zeros(1, 4), torch.zeros(1, 4), negative=0.6)


def test_assign_by_atss_by_hand():
    """One level of 3x3 squares of 8; nine candidates, IoU 64/64 with one of them, 0 with the others."""
    anchors = place_anchors(torch.tensor([[8.0, 8.0]]), rows=3, columns=3, stride_px=8)
    assert assign_by_atss(anchors, [9], torch.tensor([[8.0, 8, 16, 16]])).tolist() == [
        -1,
        -1,
        -1,
        -1,
        0,
        -1,
        -1,
        -1,
        -1,
    ]
    # 16x16 over four whole squares: IoU 1/4 each and 0 five times; mean 1/9, deviation 0.1318, threshold 0.2429
    assert assign_by_atss(anchors, [9], torch.tensor([[0.0, 0, 16, 16]])).tolist() == [0, 0, -1, 0, 0, -1, -1, -1, -1]
    # 24x16 over six: IoU 1/6 each and 0 three times; mean 1/9, deviation 1/12, threshold 0.1944: none
    assert (assign_by_atss(anchors, [9], torch.tensor([[0.0, 0, 24, 16]])) == NEGATIVE).all()


def atss_in_loops(anchors, levels, truths, count):
    """Zhang et al. 2020, algorithm 1, line by line."""
    best = {}
    for place, truth in enumerate(truths):
        candidates, start = [], 0
        for size in levels:
            level = range(start, start + size)
            centre = (truth[:2] + truth[2:]) / 2
            distance = {n: float(((anchors[n, :2] + anchors[n, 2:]) / 2 - centre).norm()) for n in level}
            candidates += sorted(level, key=distance.get)[:count]
            start += size
        iou = torch.stack([pairwise_iou(truth[None], anchors[n][None])[0, 0] for n in candidates])
        threshold = iou.mean() + iou.std()
        for n, value in zip(candidates, iou, strict=True):
            x, y = (anchors[n, :2] + anchors[n, 2:]) / 2
            inside = truth[0] < x < truth[2] and truth[1] < y < truth[3]
            if inside and value >= threshold and value > best.get(n, (0, None))[0]:
                best[n] = (value, place)
    return torch.tensor([best.get(n, (0, NEGATIVE))[1] for n in range(len(anchors))])


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_assign_by_atss_is_the_papers_algorithm_in_loops(seed):
    sizes = torch.tensor([[12.0, 12], [48, 40]], dtype=torch.float64)
    anchors, levels = place_pyramid(sizes, input_size=(128, 128), strides_px=(8, 32))
    truths = draw_truths(seed, 6)
    assert assign_by_atss(anchors, levels, truths).equal(atss_in_loops(anchors, levels, truths, 9))


def test_assign_by_atss_no_objects_and_small_levels():
    anchors, levels = make_pyramid()
    assert (assign_by_atss(anchors, levels, torch.zeros(0, 4, dtype=torch.float64)) == NEGATIVE).all()
    one = torch.tensor([[0.0, 0, 8, 8]])
    assert assign_by_atss(one, [1], one).tolist() == [0]
    with pytest.raises(BadInput, match="sum to 1 anchors"):
        assign_by_atss(one, [2], one)
