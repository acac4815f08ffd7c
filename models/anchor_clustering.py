"""Cluster box sizes into anchors that the boxes overlap most, by the mean best IoU itself.

k-means by d = 1 - IoU (YOLO9000, section 2) is only the start here: its mean is not where the IoU is highest. On a
histogram of the sizes' logarithms, which is small, many starts are drawn (k-means++ on d squared) and moved by Lloyd's
steps, then by gradient ascent of the mean best IoU, the better ones further and on a finer histogram. What is best on
the boxes themselves is taken: a histogram flatters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmill.models.box_sizes import Sizes, best_ious, count_different, size_iou
from labelmill.schemas.errors import BadInput

ROUNDS = ((16, 8, 15), (5, 12, 30), (2, 48, 30))
"""Candidates that are left, bins in an octave, steps of the ascent: a bin of 48 holds sizes that differ by 1.5 %."""

LLOYD_STEPS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchors:
    """K anchors sorted by area: (K, 2) sizes, (K,) how many boxes are nearest, and the mean best IoU of all boxes."""

    sizes: Sizes
    counts: npt.NDArray[np.int64]
    mean_iou: float


def cluster_anchors(boxes: Sizes, k: int, *, seed: int = 0) -> Anchors:
    """Return k anchors for (N, 2) box sizes, the same at every call; no anchor is without a box.

    Sizes count to the precision of float32. Raises BadInput for sizes that are not finite and above 0, and for fewer
    different sizes than anchors.
    """
    boxes = _check(boxes, k)
    random = np.random.default_rng([seed, k])
    candidates: list[Sizes] = []
    for count, bins, steps in ROUNDS:
        points, weights = _histogram(boxes, k, bins)
        if not candidates:
            starts = [_draw_start(points, weights, k, random) for _ in range(count)]
            candidates = [_lloyd(points, weights, start) for start in starts]
        climbed = [_climb(points, weights, anchors, steps) for anchors in candidates[:count]]
        candidates = [anchors for _, anchors in sorted(climbed, key=lambda climb: -climb[0])]
    finished = [describe_anchors(boxes, _fill_empty(boxes, anchors)) for anchors in candidates]
    return max(finished, key=lambda anchors: anchors.mean_iou)


def describe_anchors(boxes: Sizes, anchors: Sizes) -> Anchors:
    """Return (K, 2) anchors sorted by area, with what (N, 2) boxes say of them."""
    anchors = anchors[np.lexsort((anchors[:, 0], anchors.prod(1)))]
    best, which = best_ious(boxes, anchors)
    return Anchors(sizes=anchors, counts=np.bincount(which, minlength=len(anchors)), mean_iou=float(best.mean()))


def _check(boxes: Sizes, k: int) -> Sizes:
    """Return the sizes in steps of float32: two different ones then have an IoU below 1 also when it is computed."""
    if k < 1:
        raise BadInput(f"k: expected at least 1 anchor, got {k}")
    with np.errstate(over="ignore", under="ignore"):  # what does not fit is refused with the rest
        boxes = np.asarray(boxes, np.float32).astype(np.float64)
    if not (np.isfinite(boxes).all() and (boxes > 0).all()):
        raise BadInput("boxes: expected widths and heights that are finite and above 0")
    if count_different(boxes[: 1000 * k]) < k and (different := count_different(boxes)) < k:
        raise BadInput(f"k: {k} anchors need at least {k} different box sizes, got {different}")
    return boxes


def _histogram(boxes: Sizes, k: int, bins: int) -> tuple[Sizes, npt.NDArray[np.float64]]:
    """Return the mean size of each occupied bin of the logarithms, and how many boxes it has."""
    places = np.floor(np.log2(boxes) * bins).astype(np.int64)
    places -= places.min(0)
    across, down = (places.max(0) + 1).tolist()
    group = places[:, 0] * down + places[:, 1]
    if across * down > 8 * len(boxes):  # few boxes, or far apart: sorting is less than counting empty bins
        group = np.unique(group, return_inverse=True)[1]
    counts = np.bincount(group)
    occupied = np.flatnonzero(counts)
    if len(occupied) < 4 * k:  # so few sizes that bins would blur them
        points, repeats = np.unique(boxes, axis=0, return_counts=True)
        return points, repeats.astype(np.float64)
    means = np.stack([np.bincount(group, boxes[:, side])[occupied] / counts[occupied] for side in (0, 1)], 1)
    return means, counts[occupied].astype(np.float64)


def _draw_start(points: Sizes, weights: npt.NDArray[np.float64], k: int, random: np.random.Generator) -> Sizes:
    """Draw k points, each with a chance by its weight and its squared distance from those drawn before."""
    chosen = [int(random.choice(len(points), p=weights / weights.sum()))]
    distance = 1 - size_iou(points, points[chosen])[:, 0]
    while len(chosen) < k:
        chance = weights * distance**2
        chance[chosen] = 0
        total = chance.sum()
        chosen.append(int(random.choice(len(points), p=chance / total)) if total > 0 else int(distance.argmax()))
        distance = np.minimum(distance, 1 - size_iou(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _lloyd(points: Sizes, weights: npt.NDArray[np.float64], anchors: Sizes) -> Sizes:
    """Move anchors to the weighted geometric mean of the points nearest to them, some times."""
    logarithms = np.log(points) * weights[:, None]
    for _ in range(LLOYD_STEPS):
        which = best_ious(points, anchors)[1]
        sums = np.bincount(which, weights, len(anchors))
        moved = np.stack([np.bincount(which, logarithms[:, side], len(anchors)) for side in (0, 1)], 1)
        anchors = np.where(sums[:, None] > 0, np.exp(moved / np.maximum(sums, 1e-300)[:, None]), anchors)
    return anchors


def mean_best_iou_gradient(
    points: Sizes, weights: npt.NDArray[np.float64], anchors: Sizes
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the weighted mean best IoU, its gradient (K, 2) by the anchors' logarithms, and each anchor's share (K,).

    `points` (N, 2) and `weights` (N,) are a histogram. With inner = min(w, a) min(h, b): by log a it grows by itself
    where a < w, else not at all, and the area a b always.
    """
    best, which = best_ious(points, anchors)
    mine = anchors[which]
    outer = mine.prod(1)
    union = (points.prod(1) + outer) / (1 + best)
    inner = best * union
    share = weights / weights.sum()
    gradient = np.empty_like(anchors)
    for side in (0, 1):
        grows = inner * (mine[:, side] < points[:, side])
        slope = (grows * union - inner * (outer - grows)) / union**2
        gradient[:, side] = np.bincount(which, slope * share, len(anchors))
    owned = np.bincount(which, weights=share, minlength=len(anchors)).astype(np.float64)
    return float(best @ share), gradient, owned


def _climb(points: Sizes, weights: npt.NDArray[np.float64], anchors: Sizes, steps: int) -> tuple[float, Sizes]:
    """Move anchors up the gradient of the mean best IoU, each by its own points' mean slope; return the best met."""
    rate, best, place = 0.4, -1.0, anchors
    for _ in range(steps):
        value, gradient, mass = mean_best_iou_gradient(points, weights, anchors)
        if value > best:
            best, place, slope, owned = value, anchors, gradient, mass
            rate *= 1.2
        else:
            rate *= 0.5  # overshot: back to the best place with a smaller step
        step = rate * slope / np.maximum(owned, 1e-12)[:, None]
        anchors = place * np.exp(np.clip(step, -0.5, 0.5))
    return best, place


def _fill_empty(boxes: Sizes, anchors: Sizes) -> Sizes:
    """Put an anchor that no box is nearest to on the box that is served worst, until each has one.

    An anchor on a box has the IoU 1 with it, and no other anchor has: each turn settles one for good.
    """
    for _ in range(len(anchors)):
        best, which = best_ious(boxes, anchors)
        empty = np.flatnonzero(np.bincount(which, minlength=len(anchors)) == 0)
        if not len(empty):
            return anchors
        anchors = anchors.copy()
        anchors[empty[0]] = boxes[best.argmin()]
    return anchors
