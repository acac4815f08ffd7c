"""Unsupervised data augmentation (UDA): consistency between views, and training signal annealing.

Source: Xie et al. 2020, Unsupervised Data Augmentation for Consistency Training, sections 2.2 to 3.2.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from labelmill.schemas.errors import BadInput

AnnealingSchedule = Literal["linear", "log", "exp"]

_STEEPNESS = 5.0
"""Of the log and exp schedules, as in the paper."""


class Consistency(NamedTuple):
    """The consistency of a batch: `loss` is a scalar, `kept` the share (0…1) of images that were sure enough."""

    loss: Tensor
    kept: Tensor


def find_consistency(weak: Tensor, strong: Tensor, *, threshold: float, temperature: float = 1.0) -> Consistency:
    """Return how far the prediction for the strong view is from the sharpened one for the weak view.

    weak, strong: (B, C) logits of the same images. An image counts if its greatest probability, *not* sharpened, is
    above `threshold`; the loss is the sum of their KL(softmax(weak / temperature) ‖ softmax(strong)), divided by all B.
    No gradient flows into `weak`. Raises BadInput for other shapes, a temperature that is not positive or a threshold
    outside 0…1.
    """
    _check_pair(weak, strong)
    if not temperature > 0:
        raise BadInput(f"temperature: expected a positive number, got {temperature}")
    if not 0 <= threshold <= 1:
        raise BadInput(f"threshold: expected a probability, got {threshold}")
    weak = weak.detach()
    sure = weak.softmax(1).max(1).values > threshold
    target = F.log_softmax(weak / temperature, 1)
    divergence = F.kl_div(F.log_softmax(strong, 1), target, reduction="none", log_target=True).sum(1)
    return Consistency(loss=(divergence * sure).mean(), kept=sure.float().mean())


def find_entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy, in nats, of the predictions of (B, C) logits: the term that asks for sure ones."""
    logs = F.log_softmax(logits, 1)
    return -(logs.exp() * logs).sum(1).mean()


def find_annealing_threshold(progress: float, *, classes: int, schedule: AnnealingSchedule) -> float:
    """Return the probability of its own class above which a labelled image is left out of the loss.

    `progress` is the share of training that is done, 0…1. The threshold rises from 1 / classes to 1: `linear`, `log`
    (fast at first, for much labelled data) or `exp` (late, for little). Raises BadInput for other values.
    """
    if not 0 <= progress <= 1:
        raise BadInput(f"progress: expected a share from 0 to 1, got {progress}")
    if classes < 2:
        raise BadInput(f"classes: expected at least 2, got {classes}")
    if schedule == "linear":
        share = progress
    elif schedule == "log":
        share = 1 - math.exp(-_STEEPNESS * progress)
    elif schedule == "exp":
        share = math.exp(_STEEPNESS * (progress - 1))
    else:
        raise BadInput(f"schedule: expected linear, log or exp, got {schedule!r}")
    return share * (1 - 1 / classes) + 1 / classes


def find_annealed_cross_entropy(
    logits: Tensor, labels: Tensor, *, threshold: float, label_smoothing: float = 0.0
) -> Consistency:
    """Return the cross entropy of the labelled images that are not known too well yet, and their share.

    logits: (B, C); labels: (B,) int64. An image is left out if the probability of its *own* class exceeds `threshold`.
    The sum is divided by the number of images that count, at least one: without any the loss is zero.
    """
    with torch.no_grad():
        known = logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
        counts = known <= threshold
    each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    return Consistency(loss=(each * counts).sum() / counts.sum().clamp(min=1), kept=counts.float().mean())


def _check_pair(weak: Tensor, strong: Tensor) -> None:
    if weak.ndim != 2 or weak.shape != strong.shape:
        raise BadInput(f"logits: expected two of (B, C), got {tuple(weak.shape)} and {tuple(strong.shape)}")
