"""The cross entropy of a student on stored pseudo labels, hard or soft.

Source: Lee 2013, Pseudo-Label; Xie et al. 2020, Self-training with Noisy Student, section 2.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from labelmill.schemas.errors import BadInput


def find_pseudo_label_loss(logits: Tensor, labels: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross entropy, a scalar, of (B, C) logits on pseudo labels.

    labels: (B,) int64, or (B, C) probabilities; weights: (B,) not negative, such as a mask of those that count, by
    default one each. The sum is divided by all B, so that few sure labels weigh little.
    """
    if labels.is_floating_point() != (labels.ndim == 2) or len(labels) != len(logits):
        raise BadInput(
            f"labels: expected ({len(logits)},) ids or {tuple(logits.shape)} probabilities, got "
            f"{tuple(labels.shape)} {labels.dtype}"
        )
    each = F.cross_entropy(logits, labels, reduction="none")
    return (each if weights is None else each * weights).mean()


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Return (…, C) probabilities p^(1/T), normalised: nearer to hard labels below one, to even ones above."""
    if not temperature > 0:
        raise BadInput(f"temperature: expected a positive number, got {temperature}")
    # By logarithms: the powers of small probabilities leave float32.
    return (probabilities.clamp(min=1e-38).log() / temperature).softmax(-1)
