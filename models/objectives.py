"""What a step of training lowers: pure functions of logits and labels, one for each objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from labelmill.models.meta_pseudo_labels import find_feedback_loss
from labelmill.models.pseudo_label_loss import find_pseudo_label_loss
from labelmill.models.unsupervised_data_augmentation import (
    AnnealingSchedule,
    find_annealed_cross_entropy,
    find_annealing_threshold,
    find_consistency,
    find_entropy,
)


class Losses(NamedTuple):
    """A scalar with gradient, and scalars that are worth a column beside it, by the names of TRAINING_SCHEMA."""

    total: Tensor
    facts: dict[str, Tensor | float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencySettings:
    """How much unlabelled images count, and which.

    weight: of the unlabelled term (the paper's lambda), reached in even steps over `ramp_steps`; threshold and
    temperature: see `find_consistency`; annealing: the schedule of training signal annealing, or none;
    entropy_weight: of the entropy of unlabelled predictions.
    """

    weight: float = 1.0
    ramp_steps: int = 0
    threshold: float = 0.8
    temperature: float = 0.4
    annealing: AnnealingSchedule | Literal["none"] = "none"
    entropy_weight: float = 0.0

    def weight_at(self, step: int) -> float:
        """Return the weight of the unlabelled term in a step, counted from 0."""
        return self.weight * min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else self.weight

    def needs_unlabelled(self, step: int) -> bool:
        """Tell whether unlabelled images change anything in a step."""
        return self.weight_at(step) > 0 or self.entropy_weight > 0


class Predictions(NamedTuple):
    """Logits: labelled (B, C); weak and strong (U, C) of the same unlabelled images, None where not needed."""

    labelled: Tensor
    weak: Tensor | None = None
    strong: Tensor | None = None


def find_supervised_losses(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Losses:
    """Return the mean cross entropy of (B, C) logits on labels, (B,) int64 or (B, C) probabilities such as pooled ones.

    Source: for pooled labels Yun et al. 2021, ReLabel, section 3.3.
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return Losses(loss, {"labelled_loss": loss.detach()})


def find_pseudo_losses(
    labelled: Tensor | None,
    labels: Tensor | None,
    logits: Tensor,
    pseudo_labels: Tensor,
    *,
    weight: float,
    label_smoothing: float = 0.0,
) -> Losses:
    """Return the cross entropy of labelled images, if any, and `weight` times that of images with pseudo labels.

    labelled (B, C) with labels (B,) int64, or both None; logits (U, C) with pseudo_labels (U,) int64 or (U, C).
    """
    unlabelled = find_pseudo_label_loss(logits, pseudo_labels)
    facts: dict[str, Tensor | float] = {"unlabelled_loss": unlabelled.detach(), "unlabelled_weight": weight}
    if labelled is None or labels is None:
        return Losses(weight * unlabelled, facts)
    own = find_supervised_losses(labelled, labels, label_smoothing=label_smoothing)
    return Losses(own.total + weight * unlabelled, own.facts | facts)


def find_uda_losses(
    predictions: Predictions,
    labels: Tensor,
    *,
    settings: ConsistencySettings,
    step: int,
    steps: int,
    label_smoothing: float = 0.0,
) -> Losses:
    """Return UDA's loss: annealed cross entropy of labelled images, weighted consistency and entropy of the others.

    labels: (B,) int64; step: counted from 0, of `steps`. Where neither counts, it is the supervised loss exactly.

    Source: Xie et al. 2020, Unsupervised Data Augmentation for Consistency Training, sections 2.2 to 3.2.
    """
    if settings.annealing == "none":
        losses = find_supervised_losses(predictions.labelled, labels, label_smoothing=label_smoothing)
        total, facts = losses
    else:
        threshold = find_annealing_threshold(
            step / steps, classes=predictions.labelled.shape[1], schedule=settings.annealing
        )
        total, counted = find_annealed_cross_entropy(
            predictions.labelled, labels, threshold=threshold, label_smoothing=label_smoothing
        )
        facts = {"labelled_loss": total.detach(), "labelled_share": counted, "annealing_threshold": threshold}
    if predictions.weak is None or predictions.strong is None:
        return Losses(total, facts)
    weight = settings.weight_at(step)
    loss, kept = find_consistency(
        predictions.weak, predictions.strong, threshold=settings.threshold, temperature=settings.temperature
    )
    facts |= {"unlabelled_loss": loss.detach(), "unlabelled_share": kept, "unlabelled_weight": weight}
    total = total + weight * loss
    if settings.entropy_weight > 0:
        entropy = find_entropy(predictions.weak)
        facts["entropy"] = entropy.detach()
        total = total + settings.entropy_weight * entropy
    return Losses(total, facts)


def find_mpl_teacher_losses(
    predictions: Predictions,
    labels: Tensor,
    pseudo_labels: Tensor,
    *,
    advantage: float,
    settings: ConsistencySettings,
    step: int,
    steps: int,
    label_smoothing: float = 0.0,
) -> Losses:
    """Return the loss of a teacher in meta pseudo labels: UDA's, and the feedback on the labels it gave.

    pseudo_labels: (U,) int64, given to the student for the strong views; advantage: how much the student's step on
    them lowered its labelled loss, less a baseline (`find_feedback`, `FeedbackBaseline`).

    Source: Pham et al. 2021, Meta Pseudo Labels, section 3 and appendix A.
    """
    own = find_uda_losses(
        predictions, labels, settings=settings, step=step, steps=steps, label_smoothing=label_smoothing
    )
    if predictions.strong is None:
        raise ValueError("a teacher's feedback needs its logits of the strong views")
    feedback = find_feedback_loss(predictions.strong, pseudo_labels, advantage)
    return Losses(own.total + feedback, own.facts | {"feedback_loss": feedback.detach()})
