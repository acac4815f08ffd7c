"""Which anchors learn which object: by thresholds of the IoU, or by ATSS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labelmill.models.box_overlaps import matched_iou, pairwise_iou
from labelmill.schemas.errors import BadInput

NEGATIVE, IGNORED = -1, -2
"""What an anchor is that has no object: it learns background, or nothing."""


def assign_by_iou(
    anchors: Tensor, truths: Tensor, *, positive: float = 0.5, negative: float = 0.4, best_anchor: bool = True
) -> Tensor:
    """Return (A,) int64: for each anchor the place of its object, NEGATIVE or IGNORED.

    `anchors` (A, 4) and `truths` (G, 4) are xyxy. An anchor gets the object that it overlaps most, when by `positive`
    or more; below `negative` it is background. With `best_anchor` each object also gets the anchor that overlaps it
    most, the object with the higher IoU first, and a later one the best of those left; an object that no anchor
    overlaps gets none. Raises BadInput for thresholds out of order.
    Source: Ren et al. 2015 (Faster R-CNN), section 3.1.2; the order among objects is bipartite, as in SSD.
    """
    if not 0 <= negative <= positive <= 1:
        raise BadInput(f"expected 0 <= negative <= positive <= 1, got negative {negative} and positive {positive}")
    assigned = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
    if not len(truths) or not len(anchors):
        return assigned
    iou = pairwise_iou(truths, anchors)
    highest, which = iou.max(0)
    assigned[highest >= negative] = IGNORED
    assigned = torch.where((highest >= positive) & (highest > 0), which, assigned)
    if best_anchor:
        for truth in iou.max(1).values.argsort(descending=True, stable=True).tolist():
            value, place = iou[truth].max(0)
            if value > 0:
                assigned[place] = truth
                iou[:, place] = 0  # taken
    return assigned


def assign_by_atss(
    anchors: Tensor, levels: Sequence[int], truths: Tensor, *, per_level: int = 9, per_place: int = 1
) -> Tensor:
    """Return (A,) int64: for each anchor the place of its object, or NEGATIVE.

    `anchors` (A, 4) xyxy level by level, `levels` how many each has, `truths` (G, 4) xyxy. Candidates of an object
    are the `per_level` nearest anchors of each level by their centres (times `per_place`, the anchors at a place);
    those whose IoU reaches mean plus deviation of the candidates' are its own, if their centre lies in it. An anchor
    of several objects goes to the one it overlaps most. Raises BadInput when `levels` do not sum to A.
    Source: Zhang et al. 2020 (ATSS), algorithm 1; the deviation is the sample's, as in the authors' code.
    """
    if sum(levels) != len(anchors):
        raise BadInput(f"levels: expected numbers that sum to {len(anchors)} anchors, got {list(levels)}")
    assigned = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
    if not len(truths) or not len(anchors):
        return assigned
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    candidates = _find_nearest(centres, levels, (truths[:, :2] + truths[:, 2:]) / 2, per_level * per_place)
    count = candidates.shape[1]
    iou = matched_iou(truths.repeat_interleave(count, 0), anchors[candidates.flatten()]).reshape(-1, count)
    threshold = iou.mean(1) + iou.std(1, correction=1 if count > 1 else 0)
    places = centres[candidates]
    inside = ((places > truths[:, None, :2]) & (places < truths[:, None, 2:])).all(2)
    truth, column = torch.nonzero(inside & (iou >= threshold[:, None]) & (iou > 0), as_tuple=True)
    place, value = candidates[truth, column], iou[truth, column]
    highest = value.new_zeros(len(anchors)).scatter_reduce(0, place, value, "amax")
    won = value == highest[place]
    none = len(truths)
    first = assigned.new_full(assigned.shape, none).scatter_reduce(0, place[won], truth[won], "amin")
    return torch.where(first < none, first, assigned)


def _find_nearest(centres: Tensor, levels: Sequence[int], points: Tensor, count: int) -> Tensor:
    """Return (G, C) places of the `count` anchors of each level nearest to each of G points; all of a smaller level."""
    x, y = centres.T.contiguous()
    squares = (points[:, :1] - x) ** 2 + (points[:, 1:] - y) ** 2
    found, start = [], 0
    for size in levels:
        nearest = squares[:, start : start + size].topk(min(count, size), dim=1, largest=False)
        found.append(nearest.indices + start)
        start += size
    return torch.cat(found, 1)


def count_positives(assigned: Tensor, truths: int) -> Tensor:
    """Return (truths,) int64: how many anchors each object has in an assignment (A,)."""
    return torch.bincount(assigned[assigned >= 0], minlength=truths)
