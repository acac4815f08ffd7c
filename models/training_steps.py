"""A step of training for each objective: which network sees what, and what changes it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from labelmill.models.learner import Learner, statistics_kept
from labelmill.models.meta_pseudo_labels import FeedbackBaseline, draw_pseudo_labels, find_feedback
from labelmill.models.objectives import (
    ConsistencySettings,
    Losses,
    Predictions,
    find_mpl_teacher_losses,
    find_pseudo_losses,
    find_supervised_losses,
    find_uda_losses,
)

Facts = dict[str, Tensor | float]


class TrainingBatch(NamedTuple):
    """Normalised images, float32 on the device; None where an objective needs none.

    images: (B, 3, H, W) with labels (B,) int64 or (B, C) probabilities; weak and strong: (U, 3, H, W), views of the
    same unlabelled images; pseudo_labels: (U, C) for `strong`.
    """

    images: Tensor | None = None
    labels: Tensor | None = None
    weak: Tensor | None = None
    strong: Tensor | None = None
    pseudo_labels: Tensor | None = None

    def need(self, name: str) -> Tensor:
        """Return a tensor that an objective cannot do without; raise ValueError when the batch has none."""
        found: Tensor | None = getattr(self, name)
        if found is None:
            raise ValueError(f"{name}: the batch has none")
        return found


class Objective(Protocol):
    """Changes its networks by batches."""

    @property
    def learner(self) -> Learner:
        """The one whose network is kept."""

    def step(self, batch: TrainingBatch, step: int) -> Facts:
        """Learn from the batch of a step, counted from 0; return what is worth recording."""

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class SupervisedObjective:
    """Cross entropy on labels: the images' own, or those pooled from label maps."""

    def __init__(self, learner: Learner, *, label_smoothing: float = 0.0) -> None:
        self.learner, self._smoothing = learner, label_smoothing

    def step(self, batch: TrainingBatch, step: int) -> Facts:
        """See Objective."""
        return _learn(self.learner, self._losses(batch, step), step)

    def _losses(self, batch: TrainingBatch, step: int) -> Losses:
        return find_supervised_losses(
            self.learner.network(batch.need("images")), batch.need("labels"), label_smoothing=self._smoothing
        )

    def state(self) -> dict[str, Any]:
        """See Objective."""
        return {"student": self.learner.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """See Objective."""
        self.learner.load_state(state["student"])


class PseudoObjective(SupervisedObjective):
    """Cross entropy on labelled images, and on others with pseudo labels."""

    def __init__(self, learner: Learner, *, weight: float, label_smoothing: float = 0.0) -> None:
        super().__init__(learner, label_smoothing=label_smoothing)
        self._weight = weight

    def _losses(self, batch: TrainingBatch, step: int) -> Losses:
        strong = batch.need("strong")
        own = 0 if batch.images is None else len(batch.images)
        logits = self.learner.network(strong if batch.images is None else torch.cat([batch.images, strong]))
        return find_pseudo_losses(
            logits[:own] if own else None, batch.labels, logits[own:], batch.need("pseudo_labels"), weight=self._weight,
            label_smoothing=self._smoothing,
        )  # fmt: skip


class UdaObjective(SupervisedObjective):
    """Cross entropy on labelled images, consistency on the others."""

    def __init__(
        self, learner: Learner, settings: ConsistencySettings, *, steps: int, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(learner, label_smoothing=label_smoothing)
        self._settings, self._steps = settings, steps

    def _losses(self, batch: TrainingBatch, step: int) -> Losses:
        settings = self._settings
        predictions = predict(
            self.learner, batch, with_unlabelled=settings.needs_unlabelled(step),
            weak_gradient=settings.entropy_weight > 0,
        )  # fmt: skip
        return find_uda_losses(
            predictions, batch.need("labels"), settings=settings, step=step, steps=self._steps,
            label_smoothing=self._smoothing,
        )  # fmt: skip


def predict(learner: Learner, batch: TrainingBatch, *, with_unlabelled: bool, weak_gradient: bool) -> Predictions:
    """Return a network's logits of a batch; those of weak views have a gradient only with `weak_gradient`.

    The weak views go alone, so that nothing is kept for a backward pass that targets do not need.
    """
    images = batch.need("images")
    if not with_unlabelled:
        return Predictions(learner.network(images))
    with torch.set_grad_enabled(weak_gradient):
        weak = learner.network(batch.need("weak"))
    both = learner.network(torch.cat([images, batch.need("strong")]))
    own = len(images)
    return Predictions(both[:own], weak, both[own:])


class MplObjective(SupervisedObjective):
    """Meta pseudo labels: the student learns from the teacher's labels, the teacher from how the student fared.

    The student sees unlabelled images only; in the last steps its average is fine-tuned on labelled ones.
    """

    def __init__(
        self,
        teacher: Learner,
        student: Learner,
        settings: ConsistencySettings,
        *,
        accelerator: Accelerator,
        steps: int,
        finetune_rate: float,
        how: Literal["sample", "argmax"] = "sample",
        label_smoothing: float = 0.0,
        feedback_weight: float = 1.0,
    ) -> None:
        """Set up; `steps` are those before the fine-tuning, which has an even rate."""
        super().__init__(student, label_smoothing=label_smoothing)
        self.teacher, self.student = teacher, student
        self._settings, self._accelerator, self._steps = settings, accelerator, steps
        self._finetune_rate = finetune_rate
        self._how: Literal["sample", "argmax"] = how
        self._feedback_weight = feedback_weight
        self._baseline = FeedbackBaseline()
        self._finetuning = False

    def step(self, batch: TrainingBatch, step: int) -> Facts:
        """See Objective."""
        if step >= self._steps:
            if not self._finetuning:
                self._start_finetuning()
            return super().step(batch, step)
        predictions = predict(
            self.teacher, batch, with_unlabelled=True, weak_gradient=self._settings.entropy_weight > 0
        )
        assert predictions.strong is not None  # noqa: S101 - with unlabelled images there is
        pseudo_labels = draw_pseudo_labels(predictions.strong, how=self._how)
        before = self._labelled_loss(batch)
        student = find_supervised_losses(
            self.student.network(batch.need("strong")), pseudo_labels, label_smoothing=self._smoothing
        )
        self.student.learn(student.total, step)
        feedback = find_feedback(before, self._labelled_loss(batch))
        advantage = self._feedback_weight * self._baseline.take_off(feedback)
        losses = find_mpl_teacher_losses(
            predictions, batch.need("labels"), pseudo_labels, advantage=advantage, settings=self._settings, step=step,
            steps=self._steps, label_smoothing=self._smoothing,
        )  # fmt: skip
        facts = _learn(self.teacher, losses, step)
        return facts | {"student_loss": student.total.detach(), "feedback": feedback, "baseline": self._baseline.value}

    def _labelled_loss(self, batch: TrainingBatch) -> Tensor:
        """Return the student's cross entropy on the labelled batch, over all processes, changing nothing in it."""
        with torch.no_grad(), statistics_kept(self.student.model):
            loss = torch.nn.functional.cross_entropy(self.student.network(batch.need("images")), batch.need("labels"))
        averaged: Tensor = self._accelerator.reduce(loss, reduction="mean")
        return averaged

    def _start_finetuning(self) -> None:
        self.student.restart(rate=self._finetune_rate, factor_at=lambda step: 1.0)
        self._finetuning = True

    def state(self) -> dict[str, Any]:
        """See Objective."""
        return {
            "student": self.student.state(), "teacher": self.teacher.state(), "baseline": self._baseline.value,
            "finetuning": self._finetuning,
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        """See Objective."""
        if state["finetuning"]:
            self._start_finetuning()
        self.student.load_state(state["student"])
        self.teacher.load_state(state["teacher"])
        self._baseline.value = state["baseline"]


def _learn(learner: Learner, losses: Losses, step: int) -> Facts:
    rate = learner.learn(losses.total, step)
    return {"loss": losses.total.detach(), **losses.facts, "rate": rate}
