"""The loop of training, the same for every objective: batches in, steps, checkpoints, and a student out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from labelmill.models.cutmix import cutmix
from labelmill.models.training_steps import Objective, TrainingBatch
from labelmill.schemas.parameters.train import parse_sizes
from labelmill.tasks.stop import check_stop
from labelmill.tasks.train.batches import REJECTED, RawBatch, StepBatches, load_batches
from labelmill.tasks.train.checkpoints import RunRecords
from labelmill.tasks.train.measure import measure, normalise_batch
from labelmill.tasks.train.order import hash_seed
from labelmill.tasks.train.plan import TrainingPlan

OnSteps = Callable[[int, int], None]
"""Called with steps that were just done, and with those that an earlier run had done."""

BuildBatches = Callable[[], tuple[StepBatches, dict[str, int]]]
"""Makes the batches of a process, and counts the images that cannot be decoded by reason."""

PASSED_OVER = "passed_over"
"""Times that an image could not be read when its turn came, and another took its place."""

IMAGES = ("images", "weak", "strong")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopFacts:
    """How a run of the loop went: what it did itself, from `started_at` on.

    images: views that went into it; waited_s: time in which no network worked, for want of data.
    """

    started_at: int
    steps: int
    images: int
    seconds: float
    waited_s: float


@dataclass(slots=True)
class Best:
    """The checkpoint that was best on the validation images: `step` steps, and its weights."""

    accuracy: float = -1.0
    step: int = 0
    weights: dict[str, Tensor] | None = None


class TrainingLoop:
    """A run of training in one of its processes."""

    def __init__(self, plan: TrainingPlan, objective: Objective, accelerator: Accelerator) -> None:
        self._plan, self._objective, self._accelerator = plan, objective, accelerator
        self._records = RunRecords(plan) if accelerator.is_main_process else None
        self._facts: list[dict[str, Any]] = []
        self._best = Best()
        self._lost: Counter[str] = Counter()

    @property
    def records(self) -> RunRecords | None:
        """What the run has written, in the first process."""
        return self._records

    @property
    def best_accuracy(self) -> float | None:
        """The best accuracy on the validation images, None without any."""
        return None if self._best.weights is None else self._best.accuracy

    @property
    def lost(self) -> dict[str, int]:
        """Images that could not be decoded by reason, also in the part of the run that an earlier process did."""
        return dict(self._lost)

    def run(self, build: BuildBatches, *, workers: int, on_steps: OnSteps) -> LoopFacts:
        """Do what is left of the steps on the batches that `build` makes; it is not called when nothing is left.

        Raises WorkFailed when the process was asked to stop.
        """
        given = self._plan.parameters
        start = self._resume()
        on_steps(0, start)
        if start == given.steps:
            return LoopFacts(started_at=start, steps=0, images=0, seconds=0.0, waited_s=0.0)
        batches, lost = build()
        self._lost = Counter(lost) + Counter({PASSED_OVER: self._lost[PASSED_OVER]})
        waited, images, began = 0.0, 0, time.monotonic()
        loaded = load_batches(
            batches, start=start, stop=given.steps, workers=workers,
            pin=self._accelerator.device.type == "cuda",
        )  # fmt: skip
        for step in range(start, given.steps):
            check_stop()
            asked = time.monotonic()
            raw = next(loaded)
            waited += time.monotonic() - asked
            images += sum(len(raw[name]) for name in IMAGES if name in raw)
            self._lost[PASSED_OVER] += int(raw[REJECTED])
            self._step(raw, step)
            on_steps(1, 0)
        seconds = time.monotonic() - began
        return LoopFacts(
            started_at=start, steps=given.steps - start, images=images, seconds=seconds, waited_s=waited
        )  # fmt: skip

    def _step(self, raw: RawBatch, step: int) -> None:
        given = self._plan.parameters
        # Dropout and sampled labels depend on the step alone, so that a run that goes on draws what it would have.
        torch.manual_seed(hash_seed("step", given.seed, step, self._accelerator.process_index))
        facts: dict[str, Any] = dict(self._objective.step(self._prepare(raw, step), step))
        done = step + 1
        if done % given.validate_every == 0 or done == given.steps:
            self._validate(done, facts)
        self._facts.append(facts)
        if done % given.checkpoint_every == 0 or done == given.steps:
            self._keep(done)

    def _prepare(self, raw: RawBatch, step: int) -> TrainingBatch:
        """Bring a batch to the device: normalised, at the step's size, mixed."""
        device, given = self._accelerator.device, self._plan.parameters
        found = {name: value.to(device, non_blocking=True) for name, value in raw.items() if name != REJECTED}
        for name in IMAGES:
            if name in found:
                found[name] = self._resize(normalise_batch(found[name], self._plan.student.preprocessing), step)
        if given.cutmix > 0:
            labels = found["labels"]
            if not labels.is_floating_point():
                labels = F.one_hot(labels, len(self._plan.classes)).float()
            generator = torch.Generator().manual_seed(hash_seed("cutmix", given.seed, step))
            found["images"], found["labels"] = cutmix(found["images"], labels, alpha=given.cutmix, generator=generator)
        return TrainingBatch(**found)

    def _resize(self, images: Tensor, step: int) -> Tensor:
        sizes = parse_sizes(self._plan.parameters.sizes)
        if not sizes:
            return images
        size = sizes[hash_seed("size", self._plan.parameters.seed, step) % len(sizes)]
        if images.shape[-1] == size:
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)

    def _validate(self, done: int, facts: dict[str, Any]) -> None:
        plan = self._plan
        if not len(plan.validation) or not self._accelerator.is_main_process:
            return
        result = self._objective.learner.result
        accuracy = measure(
            result, plan.validation, plan.student.preprocessing, max_pixels=plan.parameters.max_pixels
        ).value
        facts["validation_accuracy"] = accuracy
        if accuracy > self._best.accuracy:
            weights = {name: value.detach().cpu().clone() for name, value in result.state_dict().items()}
            self._best = Best(accuracy, done, weights)

    def _keep(self, done: int) -> None:
        if self._records is None:
            return
        rows = [{name: float(value) for name, value in facts.items()} for facts in self._facts]
        self._records.write_curves(rows, start=done - len(rows))
        self._facts.clear()
        best = {"accuracy": self._best.accuracy, "step": self._best.step, "weights": self._best.weights}
        self._records.write_state(
            {"objective": self._objective.state(), "best": best, "lost": dict(self._lost)}, step=done
        )

    def _resume(self) -> int:
        """Go on from the latest checkpoint, in every process; return the steps that are done."""
        records = self._records or RunRecords(self._plan)
        every, steps = self._plan.parameters.checkpoint_every, self._plan.parameters.steps
        found = records.find_state([*range(every, steps, every), steps])
        if found is None:
            return 0
        done, state = found
        self._objective.load_state(state["objective"])
        self._best = Best(**state["best"])
        self._lost = Counter(state["lost"])
        return done

    def finish(self) -> tuple[nn.Module, int]:
        """Return the student to keep, on the device: the last, or the best on validation images; and its steps."""
        result = self._objective.learner.result
        if self._best.weights is None:
            return result, self._plan.parameters.steps
        result.load_state_dict(self._best.weights)
        return result, self._best.step
