"""IoU, GIoU and non-maximum suppression of boxes, on torchvision's operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, generalized_box_iou


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return (N, M) IoU of (N, 4) and (M, 4) xyxy boxes; 0 for two boxes without area."""
    found: Tensor = box_iou(boxes, others)
    return found.nan_to_num(nan=0.0)


def pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return (N, M) generalised IoU in [-1, 1] of (N, 4) and (M, 4) xyxy boxes; -1 for two boxes without area.

    Source: Rezatofighi et al. 2019, algorithm 1.
    """
    found: Tensor = generalized_box_iou(boxes, others)
    return found.nan_to_num(nan=-1.0)


def matched_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return (N,) IoU of each of (N, 4) xyxy boxes with the other in its place; 0 for two boxes without area."""
    inner, union, _ = _areas(boxes, others)
    return (inner / union).nan_to_num(nan=0.0)


def matched_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return (N,) generalised IoU of each of (N, 4) xyxy boxes with the other in its place.

    It is -1 for two boxes without area, as in `pairwise_giou`. 1 minus it is the loss.
    """
    inner, union, hull = _areas(boxes, others)
    return (inner / union - (hull - union) / hull).nan_to_num(nan=-1.0)


def _areas(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what two boxes share, cover and span."""
    sizes = [box[:, 2:] - box[:, :2] for box in (boxes, others)]
    inner = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    hull = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    shared = inner.prod(1)
    return shared, sizes[0].prod(1) + sizes[1].prod(1) - shared, hull.prod(1)


def suppress_overlaps(
    boxes: Tensor,
    scores: Tensor,
    class_ids: Tensor,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
    limit: int | None = None,
) -> Tensor:
    """Return the places of the detections that stay, best first.

    `boxes` (N, 4) xyxy, `scores` (N,), `class_ids` (N,) int64. Of two boxes of a class that overlap by more than
    `iou_threshold` the better one stays; those scored below `score_threshold`, or NaN, do not count; of the rest
    `limit` stay.
    """
    places = torch.nonzero(scores >= score_threshold).flatten()
    kept: Tensor = batched_nms(boxes[places].float(), scores[places], class_ids[places], iou_threshold)
    return places[kept[:limit]]
