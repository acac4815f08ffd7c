"""What is stored of an image: a prediction's facts, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labelmill.models.prediction_facts import find_prediction_facts
from labelmill.schemas.images import Reason
from labelmill.tasks.images.rejected_image import RejectedImage


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """An image's likeliest classes with their probabilities, likeliest first, and how sure the prediction is."""

    class_ids: list[int]
    probabilities: list[float]
    confidence: float
    margin: float
    entropy: float


Predicted = Prediction | RejectedImage


def find_facts(probabilities: Tensor, top_k: int) -> tuple[Tensor, ...]:
    """Return the tensors that `read_predictions` takes, each with B rows, of mean probabilities (B, C) float32."""
    return (*find_prediction_facts(probabilities, top_k), probabilities.isfinite().all(1))


def read_predictions(facts: tuple[Tensor, ...]) -> list[Predicted]:
    """Return the B predictions of `find_facts`; one that is not finite is rejected, the others are as without it."""
    ids, probabilities, confidence, margin, entropy, finite = (fact.tolist() for fact in facts)
    return [
        Prediction(
            class_ids=ids[row],
            probabilities=probabilities[row],
            confidence=confidence[row],
            margin=margin[row],
            entropy=entropy[row],
        )
        if finite[row]
        else RejectedImage(Reason.NOT_FINITE, "probabilities: expected finite numbers; the teacher's logits are not")
        for row in range(len(finite))
    ]


def average_views(logits: Tensor, flipped: Tensor | None) -> Tensor:
    """Return the probabilities (B, C) of logits (B, C), averaged with those of `flipped` where there are any."""
    probabilities = torch.softmax(logits, dim=1)
    return probabilities if flipped is None else (probabilities + torch.softmax(flipped, dim=1)) / 2
