"""What is kept of a prediction: its likeliest classes, and how sure it is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from labelmill.schemas.errors import BadInput


class PredictionFacts(NamedTuple):
    """Of B predictions: class_ids (B, k) int64 and probabilities (B, k), likeliest first; the rest (B,) each.

    margin: between the two likeliest; entropy: of the whole distribution, in nats.
    """

    class_ids: Tensor
    probabilities: Tensor
    confidence: Tensor
    margin: Tensor
    entropy: Tensor


def find_prediction_facts(probabilities: Tensor, top_k: int) -> PredictionFacts:
    """Return the facts of (B, C) probabilities, C of two or more; of equal ones the lower id comes first.

    Raises BadInput for another shape or more classes to keep than there are.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise BadInput(f"probabilities: expected (B, C) of two classes or more, got {tuple(probabilities.shape)}")
    if not 1 <= top_k <= probabilities.shape[1]:
        raise BadInput(f"top_k: expected 1 to {probabilities.shape[1]}, the number of classes, got {top_k}")
    # A stable sort and not topk, which leaves the order of equal values open.
    ordered = probabilities.sort(dim=1, descending=True, stable=True)
    values, ids = ordered.values[:, :top_k], ordered.indices[:, :top_k]
    entropy = torch.special.entr(probabilities.double()).sum(1).to(probabilities.dtype)
    confidence = ordered.values[:, 0]
    return PredictionFacts(
        class_ids=ids,
        probabilities=values,
        confidence=confidence,
        margin=confidence - ordered.values[:, 1],
        entropy=entropy,
    )
