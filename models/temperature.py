"""One scalar that makes pooled labels as sure as the classifier itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from labelmill.schemas.errors import BadInput

TEMPERATURE_RANGE = (0.05, 20.0)
"""Beyond these a label is one-hot or uniform: the fit has no optimum there worth having."""


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the T that minimises the mean cross-entropy of softmax(logits / T) to `targets`.

    logits: (N, C) float; targets: (N, C) float probabilities, rows sum to 1. The problem is convex in 1 / T; solved
    by bisection of its derivative in float64 within TEMPERATURE_RANGE. Raises BadInput for empty or unequal shapes.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2, with soft targets.
    """
    if logits.shape != targets.shape or logits.ndim != 2 or not len(logits):
        raise BadInput(f"temperature: expected equal (N, C), got {tuple(logits.shape)} and {tuple(targets.shape)}")
    z, wanted = logits.double(), (targets.double() * logits.double()).sum(1).mean()
    low, high = (1 / t for t in reversed(TEMPERATURE_RANGE))
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        expected = (torch.softmax(middle * z, 1) * z).sum(1).mean()  # grows with 1 / T
        low, high = (middle, high) if expected < wanted else (low, middle)
    return 1 / math.sqrt(low * high)
