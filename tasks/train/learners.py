"""The objective of a run with its networks, and the streams of images that it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator

from labelmill.models.learner import Learner, LearningSettings, find_rate_factor
from labelmill.models.objectives import ConsistencySettings
from labelmill.models.students import Student, group_parameters
from labelmill.models.training_steps import (
    MplObjective,
    Objective,
    PseudoObjective,
    SupervisedObjective,
    UdaObjective,
)
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.parameters import TrainParameters
from labelmill.tasks.train.batches import ClassLabels, PooledLabels, StepBatches, Stream
from labelmill.tasks.train.examples import Examples
from labelmill.tasks.train.order import ShuffledOrder
from labelmill.tasks.train.pixels import FilePixels, PixelSource, decode_all, fits_memory
from labelmill.tasks.train.plan import TrainingPlan, start_student

FINETUNE_SHARE = 10
"""Of the steps of meta pseudo labels, one in so many fine-tunes."""

OnImages = Callable[[int, int], None]


def count_main_steps(parameters: TrainParameters) -> int:
    """Return the steps before the fine-tuning of meta pseudo labels, all of other objectives."""
    if parameters.objective != "mpl":
        return parameters.steps
    finetune = parameters.steps // FINETUNE_SHARE if parameters.finetune_steps is None else parameters.finetune_steps
    return parameters.steps - finetune


def build_objective(plan: TrainingPlan, accelerator: Accelerator) -> Objective:
    """Build the objective that the parameters name, its networks on the accelerator's device."""
    given = plan.parameters
    learner = _make_learner(plan.student, given, accelerator, wait_steps=given.wait_steps)
    smoothing = 0.0 if given.objective == "relabel" else given.label_smoothing  # pooled labels are soft already
    if given.objective in ("supervised", "relabel"):
        return SupervisedObjective(learner, label_smoothing=smoothing)
    if given.objective == "pseudo":
        return PseudoObjective(learner, weight=given.unlabelled_weight, label_smoothing=smoothing)
    settings = ConsistencySettings(
        weight=given.unlabelled_weight, ramp_steps=given.ramp_steps, threshold=given.threshold,
        temperature=given.temperature, annealing=given.annealing, entropy_weight=given.entropy_weight,
    )  # fmt: skip
    if given.objective == "uda":
        return UdaObjective(learner, settings, steps=given.steps, label_smoothing=smoothing)
    teacher = _make_learner(start_student(given, plan.classes, role="teacher"), given, accelerator, average=0.0)
    return MplObjective(
        teacher, learner, settings, accelerator=accelerator, steps=count_main_steps(given),
        finetune_rate=given.finetune_rate, how=given.pseudo_label, label_smoothing=smoothing,
        feedback_weight=given.feedback_weight,
    )  # fmt: skip


def _make_learner(
    student: Student,
    given: TrainParameters,
    accelerator: Accelerator,
    *,
    wait_steps: int = 0,
    average: float | None = None,
) -> Learner:
    settings = LearningSettings(
        optimizer=given.optimizer, rate=given.rate, clip_norm=given.clip_norm,
        average=given.average if average is None else average,
    )  # fmt: skip
    groups = group_parameters(student, rate=given.rate, body_rate=given.body_rate, weight_decay=given.weight_decay)
    factor_at = partial(
        find_rate_factor, steps=count_main_steps(given), schedule=given.schedule, warmup_steps=given.warmup_steps,
        wait_steps=wait_steps if given.objective == "mpl" else 0,
    )  # fmt: skip
    return Learner(student.model, groups, settings, accelerator=accelerator, factor_at=factor_at)


def build_batches(
    plan: TrainingPlan, *, rank: int = 0, ranks: int = 1, on_images: OnImages = lambda images, rejected: None
) -> tuple[StepBatches, dict[str, int]]:
    """Return the batches of one of several processes, and the images that could not be decoded, by reason."""
    streams: list[Stream] = []
    lost: Counter[str] = Counter()
    for examples, make in ((plan.labelled, _labelled_stream), (plan.unlabelled, _unlabelled_stream)):
        if examples is None or not len(examples):
            continue
        whole, pixels, reasons = _open_pixels(examples, plan.parameters, on_images)
        lost.update(reasons)
        if len(whole):
            streams.append(make(plan, whole, pixels))
    if len(streams) < sum(1 for one in (plan.labelled, plan.unlabelled) if one is not None and len(one)):
        raise WorkFailed(f"no image could be read: {dict(lost)}; when they are elsewhere, say so with image_root")
    return StepBatches(streams=tuple(streams), rank=rank, ranks=ranks), dict(lost)


def _open_pixels(
    examples: Examples, given: TrainParameters, on_images: OnImages
) -> tuple[Examples, PixelSource, dict[str, int]]:
    if fits_memory(examples, cache_mb=given.cache_mb):
        return decode_all(examples, max_pixels=given.max_pixels, on_images=on_images)
    return examples, FilePixels(examples, max_pixels=given.max_pixels), {}


def _labelled_stream(plan: TrainingPlan, examples: Examples, pixels: PixelSource) -> Stream:
    given, pooled = plan.parameters, None
    if plan.maps is not None:
        pooled = PooledLabels(maps=plan.maps, rows=plan.maps.rows_of(examples.ids()), mode=given.pooling)
    return Stream(
        pixels=pixels, places=np.arange(len(examples)), ids=examples.ids(), count=given.batch_size,
        views={"images": plan.weak_views()}, labels=ClassLabels(values=torch.from_numpy(examples.classes)),
        pooled=pooled, order=ShuffledOrder(len(examples), seed=given.seed, name="labelled"),
    )  # fmt: skip


def _unlabelled_stream(plan: TrainingPlan, examples: Examples, pixels: PixelSource) -> Stream:
    given = plan.parameters
    count = given.batch_size * given.unlabelled_ratio
    if plan.manifest is None:
        return Stream(
            pixels=pixels, places=np.arange(len(examples)), ids=examples.ids(), count=count,
            views={"weak": plan.weak_views(), "strong": plan.strong_views()}, steps=count_main_steps(given),
            order=ShuffledOrder(len(examples), seed=given.seed, name="unlabelled"),
        )  # fmt: skip
    places = np.repeat(np.arange(len(examples)), plan.manifest.copies_of(examples))
    return Stream(
        pixels=pixels, places=places, ids=examples.ids(), count=count, views={"strong": plan.strong_views()},
        order=ShuffledOrder(len(places), seed=given.seed, name="unlabelled"), labels_name="pseudo_labels",
        labels=plan.manifest.labels_for(examples),
    )  # fmt: skip
