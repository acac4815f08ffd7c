"""CutMix on soft labels: a box of one image is pasted into another, and their labels are mixed by area."""

from __future__ import annotations

import math

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from labelmill.schemas.errors import BadInput


def cutmix(
    images: Tensor, labels: Tensor, *, alpha: float = 1.0, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return a mixed batch: (B, 3, H, W) images and (B, C) labels, new tensors.

    images: (B, 3, H, W); labels: (B, C) float, such as pooled ones; they may be on different devices. Every image
    gets the same box of another image of the batch, and its label the other's by the box's share of the area. The
    share is drawn from Beta(alpha, alpha) before the box is cut at the border. `generator` is one of the CPU.
    Raises BadInput for tensors of other shapes or an alpha that is not positive.

    Source: Yun et al. 2019, CutMix, section 3.1; with pooled labels Yun et al. 2021, ReLabel, section 3.3.
    """
    if images.ndim != 4:
        raise BadInput(f"images: expected (B, 3, H, W), got {tuple(images.shape)}")
    if labels.ndim != 2 or len(labels) != len(images) or not labels.is_floating_point():
        raise BadInput(f"labels: expected ({len(images)}, C) probabilities, got {tuple(labels.shape)} {labels.dtype}")
    if not 0 < alpha < math.inf:
        raise BadInput(f"alpha: expected a positive number, got {alpha}")
    height, width = images.shape[2:]
    top, bottom, left, right = _draw_box(height, width, alpha, generator)
    other = torch.randperm(len(images), generator=generator)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[other.to(images.device), :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / (height * width)  # of what was pasted, after the cut at the border
    return mixed, labels * (1 - share) + labels[other.to(labels.device)] * share


def _draw_box(height: int, width: int, alpha: float, generator: Generator | None) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of a box that has the image's shape and may be cut at the border."""
    kept = betaincinv(alpha, alpha, float(torch.rand((), generator=generator)))  # torch's Beta takes no generator
    side = math.sqrt(1 - float(kept))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    y = int(torch.randint(height, (), generator=generator))
    x = int(torch.randint(width, (), generator=generator))
    return max(y - half_height, 0), min(y + half_height, height), max(x - half_width, 0), min(x + half_width, width)
