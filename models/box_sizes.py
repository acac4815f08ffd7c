"""IoU of box sizes: of boxes that share a centre, so that only widths and heights count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.float64]
"""(N, 2) widths and heights, in any one unit."""

_ROWS_AT_ONCE = 65_536
"""So many boxes against a dozen anchors stay in a core's cache."""


def size_iou(boxes: Sizes, anchors: Sizes) -> npt.NDArray[np.float64]:
    """Return (N, K) IoU of N box sizes with K anchors; both (…, 2), above 0.

    Source: YOLO9000, section 2 (d = 1 - IoU with a shared centre).
    """
    inner = np.minimum(boxes[:, None, 0], anchors[None, :, 0]) * np.minimum(boxes[:, None, 1], anchors[None, :, 1])
    iou: npt.NDArray[np.float64] = inner / (boxes.prod(1)[:, None] + anchors.prod(1)[None] - inner)
    return iou


def best_ious(boxes: Sizes, anchors: Sizes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return for each of N boxes its highest IoU with an anchor, and the first anchor that has it."""
    best, which = np.zeros(len(boxes)), np.zeros(len(boxes), np.intp)
    for start in range(0, len(boxes), _ROWS_AT_ONCE):
        piece = slice(start, start + _ROWS_AT_ONCE)
        width, height = (np.ascontiguousarray(boxes[piece, side]) for side in (0, 1))
        area, highest, first = width * height, best[piece], which[piece]
        for number, (across, down) in enumerate(anchors):  # one by one: half the time of an (N, K) array
            inner = np.minimum(width, across) * np.minimum(height, down)
            iou = inner / (area + (across * down - inner))
            better = iou > highest
            np.copyto(highest, iou, where=better)
            np.copyto(first, number, where=better)
    return best, which


def count_different(boxes: Sizes) -> int:
    """Return how many different sizes (N, 2) holds, to the precision of float32."""
    pairs = np.ascontiguousarray(boxes, np.float32).view(np.int64)  # a tenth of the time of unique(axis=0)
    return len(np.unique(pairs))


def match_by_ratio(boxes: Sizes, anchors: Sizes, *, limit: float = 4.0) -> tuple[float, float]:
    """Return the share of boxes within a ratio of an anchor, and the mean of the best ratio, 0 beyond it.

    The first is yolov5's best possible recall, the second its fitness; `limit` its anchor_t.
    """
    ratios = size_ratios(boxes, anchors)
    near = ratios > 1 / limit
    return float(near.mean()), float((ratios * near).mean())


def size_ratios(boxes: Sizes, anchors: Sizes) -> npt.NDArray[np.float64]:
    """Return (N,) for each box the best over anchors of its worse side ratio, at most 1: yolov5's measure of a match.

    A detector that matches by ratio at a threshold of 4 can learn a box whose value is above 1/4.
    """
    best = np.empty(len(boxes))
    for start in range(0, len(boxes), _ROWS_AT_ONCE):
        ratio = boxes[start : start + _ROWS_AT_ONCE, None] / anchors[None]
        best[start : start + _ROWS_AT_ONCE] = np.minimum(ratio, 1 / ratio).min(2).max(1)
    return best
