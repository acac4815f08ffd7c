"""Mixup on soft labels: images are blended in pairs, and their labels by the same share."""

from __future__ import annotations

import math

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from labelmill.schemas.errors import BadInput


def mixup(
    images: Tensor, labels: Tensor, *, alpha: float = 0.2, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return a mixed batch: (B, 3, H, W) images and (B, C) labels, new tensors.

    images: (B, 3, H, W) float; labels: (B, C) float, such as pooled ones; they may be on different devices. One share
    for the batch is drawn from Beta(alpha, alpha), and a partner for each image. `generator` is one of the CPU.
    Raises BadInput for tensors of other shapes or types, or an alpha that is not positive.

    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, section 2.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise BadInput(f"images: expected (B, 3, H, W) of floats, got {tuple(images.shape)} {images.dtype}")
    if labels.ndim != 2 or len(labels) != len(images) or not labels.is_floating_point():
        raise BadInput(f"labels: expected ({len(images)}, C) probabilities, got {tuple(labels.shape)} {labels.dtype}")
    if not 0 < alpha < math.inf:
        raise BadInput(f"alpha: expected a positive number, got {alpha}")
    drawn = float(torch.rand((), generator=generator, dtype=torch.float64))
    share = float(betaincinv(alpha, alpha, drawn))  # torch's Beta takes no generator
    other = torch.randperm(len(images), generator=generator)
    mixed = images * share + images[other.to(images.device)] * (1 - share)
    return mixed, labels * share + labels[other.to(labels.device)] * (1 - share)
