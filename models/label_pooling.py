"""LabelPooling: the label of a crop, from a sparse label map, without ever making the map dense."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labelmill.schemas.errors import BadInput

BOX_REACH_MAX = 64.0
"""Boxes may reach this many image sizes beyond the image: far more than any crop, and work stays bounded."""


ABSENT_SHARE = 0.8
"""Shrinks the mean of a class where it is absent: measured at 224 and 475, likelihood is best between 0.7 and 0.8 at
both, and agreement with the dense label hardly lower than with all of it (docs/label-maps.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMapBatch:
    """Label maps of B images, sparse: each image lists L distinct classes, each cell points into that list.

    classes: (B, L) int64, ids of the listed classes; padding is `num_classes`.
    absent: (B, L) float32, mean centred logit of a listed class over the cells where it is not in the top-k.
    index: (B, H, W, k) int64, places in `classes`, by descending logit.
    logits: (B, H, W, k) float32, centred: the mean of the cell's logits outside its top-k is 0.
    """

    classes: Tensor
    absent: Tensor
    index: Tensor
    logits: Tensor
    num_classes: int


def roi_weights(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return how much each cell of one axis counts in RoIAlign with one output bin.

    low, high: (B,) float32, ends of the boxes in [0, 1] of the image; returns (B, cells) float32. Equal to
    `torchvision.ops.roi_align(…, output_size=1, sampling_ratio=-1, aligned=False)` on boxes `ends * cells - 0.5`,
    which is separable in x and y: samples evenly spread over the box, bilinear, none beyond one cell of the border.

    Source: He et al. 2017, Mask R-CNN, section 3; the coordinates are those of Yun et al. 2021, ReLabel.
    """
    start = low.float() * cells - 0.5
    size = (high.float() * cells - 0.5 - start).clamp(min=1.0)  # aligned=False never samples less than a cell
    samples = size.ceil()
    step = torch.arange(int(samples.max()) if len(samples) else 1, dtype=torch.float32, device=low.device)
    at = start[:, None] + (step + 0.5) * (size / samples)[:, None]  # (B, S)
    counted = (step < samples[:, None]) & (at >= -1) & (at <= cells)
    cell = torch.arange(cells, dtype=torch.float32, device=low.device)
    near = (1 - (at.clamp(0, cells - 1)[:, :, None] - cell).abs()).clamp(min=0)  # (B, S, cells)
    return (near * counted[:, :, None]).sum(1) / samples[:, None]


def pool_logits(maps: LabelMapBatch, boxes: Tensor, *, absent_share: float) -> Tensor:
    """Pool each image's map over its box; return (B, C) float32 logits.

    boxes: (B, 4) float, x1 y1 x2 y2 in [0, 1] of the image; they may reach beyond it. Where a
    listed class is not in the top-k it counts with `absent_share` of its absent mean; a class that is not listed
    counts with 0. Raises BadInput for boxes of another shape, not finite or absurdly far away.

    Source: Yun et al. 2021, ReLabel, section 3.3.
    """
    batch, height, width, _ = maps.logits.shape
    check_boxes(boxes, batch)
    weights = (
        roi_weights(boxes[:, 1], boxes[:, 3], height)[:, :, None]
        * roi_weights(boxes[:, 0], boxes[:, 2], width)[:, None, :]
    )  # (B, H, W)
    index = maps.index.flatten(1)
    spread = weights[..., None].expand_as(maps.logits)
    pooled = torch.zeros_like(maps.absent).scatter_add_(1, index, (spread * maps.logits).flatten(1))
    if absent_share:
        present = torch.zeros_like(maps.absent).scatter_add_(1, index, spread.flatten(1))
        pooled += absent_share * maps.absent * (weights.sum((1, 2))[:, None] - present)
    dense = pooled.new_zeros(batch, maps.num_classes + 1)  # the last column takes the padding
    return dense.scatter_(1, maps.classes, pooled)[:, :-1]


def pool_label_maps(
    maps: LabelMapBatch, boxes: Tensor, *, absent_share: float = ABSENT_SHARE, temperature: float = 1.0
) -> Tensor:
    """Return the label of each image's crop: (B, C) float32 probabilities.

    The softmax of `pool_logits` at a temperature. The paper's arithmetic is `absent_share=0`, `temperature=1`.
    """
    return torch.softmax(pool_logits(maps, boxes, absent_share=absent_share) / temperature, dim=1)


def check_boxes(boxes: Tensor, batch: int) -> None:
    """Raise BadInput unless `boxes` is (batch, 4), floating, finite and within reach of the image."""
    if boxes.shape != (batch, 4) or not boxes.is_floating_point():
        raise BadInput(
            f"boxes: expected ({batch}, 4) floats, x1 y1 x2 y2 in [0, 1], got {tuple(boxes.shape)} {boxes.dtype}"
        )
    if not bool((boxes.abs() <= BOX_REACH_MAX).all()):
        raise BadInput(f"boxes: expected finite coordinates within ±{BOX_REACH_MAX:g} image sizes; are these pixels?")
