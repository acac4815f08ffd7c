"""Meta pseudo labels (MPL): the teacher learns from how its pseudo labels changed the student.

Source: Pham et al. 2021, Meta Pseudo Labels, sections 2 and 3 and appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from labelmill.schemas.errors import BadInput

BASELINE_MOMENTUM = 0.99
"""Of the moving average of feedbacks: about a hundred steps."""


def draw_pseudo_labels(
    logits: Tensor, *, how: Literal["sample", "argmax"] = "sample", generator: Generator | None = None
) -> Tensor:
    """Return hard pseudo labels (B,) int64 of a teacher's (B, C) logits, without gradient.

    The feedback is right in expectation over labels that are *sampled* from the teacher; `argmax` is what is often
    used in their place, and may push the teacher the wrong way. Labels are never soft: then the teacher's feedback
    term has no gradient at all. `generator` is one of the logits' device.
    """
    if logits.ndim != 2:
        raise BadInput(f"logits: expected (B, C), got {tuple(logits.shape)}")
    if how == "argmax":
        return logits.detach().argmax(1)
    return torch.multinomial(logits.detach().softmax(1), 1, generator=generator).squeeze(1)


@dataclass(slots=True, kw_only=True)
class FeedbackBaseline:
    """A moving average of feedbacks, from zero on, which is taken off to make them vary less."""

    value: float = 0.0
    momentum: float = BASELINE_MOMENTUM

    def take_off(self, feedback: float) -> float:
        """Return the feedback less the average of those before it, which then takes it in."""
        advantage = feedback - self.value
        self.value = self.momentum * self.value + (1 - self.momentum) * feedback
        return advantage


def find_feedback(before: Tensor, after: Tensor) -> float:
    """Return how much a student's step on pseudo labels lowered its labelled loss.

    before, after: the student's scalar cross entropy on the same labelled batch, in the same mode, before and after
    the step. It is positive when the pseudo labels helped. (Released code has the difference the other way round.)
    """
    return float(before.detach() - after.detach())


def find_feedback_loss(logits: Tensor, pseudo_labels: Tensor, feedback: float) -> Tensor:
    """Return the teacher's feedback term, a scalar: labels that helped the student become likelier.

    logits: the teacher's (B, C), with gradient, on the views that the student was trained on; pseudo_labels: (B,)
    int64, those that the student was given; feedback: `find_feedback`, less a baseline. Its gradient, in expectation
    over sampled labels, is that of the student's labelled loss after its step.
    """
    if pseudo_labels.ndim != 1 or pseudo_labels.is_floating_point():
        raise BadInput(
            f"pseudo_labels: expected hard ones, (B,) int64, got {tuple(pseudo_labels.shape)} {pseudo_labels.dtype}; "
            "soft ones give the teacher no gradient"
        )
    return feedback * F.cross_entropy(logits, pseudo_labels)
