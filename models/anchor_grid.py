"""Anchors at every place of feature maps, and the prior boxes of SSD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from labelmill.schemas.errors import BadInput


def place_anchors(sizes: Tensor, *, rows: int, columns: int, stride_px: float) -> Tensor:
    """Return (rows · columns · K, 4) xyxy pixels: K anchors around the centre of every cell of a feature map.

    `sizes` (K, 2) widths and heights in pixels. The order is row, column, anchor: that of a (rows, columns, K) output.
    """
    x = (torch.arange(columns, dtype=sizes.dtype) + 0.5) * stride_px
    y = (torch.arange(rows, dtype=sizes.dtype) + 0.5) * stride_px
    return _around(_centres(x, y), sizes)


def place_pyramid(
    sizes: Tensor, *, input_size: tuple[int, int], strides_px: Sequence[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """Return (A, 4) xyxy pixels of all levels, finest first, and how many anchors each has.

    `sizes` (K, 2), ascending by area, are dealt out evenly: the smallest to the finest stride. `input_size` is height
    and width in pixels. Raises BadInput when K is no multiple of the number of strides.
    """
    levels = len(strides_px)
    if len(sizes) % levels:
        raise BadInput(f"strides: {len(sizes)} anchors cannot be split evenly over {levels} strides")
    placed = [
        place_anchors(
            part, rows=math.ceil(input_size[0] / stride), columns=math.ceil(input_size[1] / stride), stride_px=stride
        )
        for part, stride in zip(sizes.chunk(levels), sorted(strides_px), strict=True)
    ]
    return torch.cat(placed), tuple(len(level) for level in placed)


def ssd_scales(levels: int, *, low: float = 0.2, high: float = 0.9) -> list[float]:
    """Return levels + 1 scales in equal steps: the last one is for the larger square of the last level.

    Source: Liu et al. 2016 (SSD), equation 4.
    """
    step = (high - low) / (levels - 1) if levels > 1 else 0.0
    return [low + step * level for level in range(levels + 1)]


def ssd_priors(
    maps: Sequence[tuple[int, int]],
    *,
    scales: Sequence[float],
    aspect_ratios: Sequence[Sequence[float]],
    clip: bool = True,
) -> Tensor:
    """Return (P, 4) float64 xyxy, relative to the input, of SSD's prior boxes over maps of (rows, columns).

    Each cell has a square of the level's scale, one of the geometric mean with the next scale, and two boxes for each
    of the level's aspect ratios, such as 2 for 2:1 and 1:2. Raises BadInput when the numbers of maps, scales (one
    more) and ratios do not agree. Source: Liu et al. 2016 (SSD), section 2.2.
    """
    if not len(maps) == len(aspect_ratios) == len(scales) - 1:
        raise BadInput(
            f"expected as many aspect ratios as maps and one scale more, got {len(maps)} maps, {len(aspect_ratios)} "
            f"sets of ratios, {len(scales)} scales"
        )
    placed = []
    for level, (rows, columns) in enumerate(maps):
        scale, square = scales[level], math.sqrt(scales[level] * scales[level + 1])
        sizes = [(scale, scale), (square, square)]
        for ratio in aspect_ratios[level]:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sizes += [(long, short), (short, long)]
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
        placed.append(_around(_centres(x, y), torch.tensor(sizes, dtype=torch.float64)))
    boxes = torch.cat(placed)
    return boxes.clamp(0, 1) if clip else boxes


def _centres(x: Tensor, y: Tensor) -> Tensor:
    """Return (len(y) · len(x), 2) points, row by row."""
    return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], 1)


def _around(centres: Tensor, sizes: Tensor) -> Tensor:
    """Return (N · K, 4) boxes of K sizes around each of N points."""
    halves = sizes[None] / 2
    return torch.cat([centres[:, None] - halves, centres[:, None] + halves], 2).reshape(-1, 4)
