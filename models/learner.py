"""A network that learns: its optimizer, the schedule of its rate, and the moving average of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

ScheduleKind = Literal["cosine", "one-cycle", "constant"]

_WARM_AVERAGE = 10
"""An average of n steps weighs the last one by 1 / (n + 10) at least: the random start is soon forgotten."""

_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1e-4
_ONE_CYCLE_RISE = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningSettings:
    """How a network learns. rate: of the new head, `body_rate` times that elsewhere, before the schedule."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    rate: float = 0.03
    momentum: float = 0.9
    schedule: ScheduleKind = "cosine"
    warmup_steps: int = 0
    wait_steps: int = 0
    clip_norm: float = 0.0
    average: float = 0.0


def find_rate_factor(
    step: int, *, steps: int, schedule: ScheduleKind, warmup_steps: int = 0, wait_steps: int = 0
) -> float:
    """Return what the rate is multiplied by in a step, counted from 0, of `steps`.

    It is 0 for `wait_steps`, then rises evenly for `warmup_steps`; `cosine` falls to 0 along half a wave, `one-cycle`
    rises for 0.3 of the way from 1/25 and falls to 1/10,000, both along half waves.

    Source: Loshchilov & Hutter 2017, SGDR, section 3; Smith & Topin 2019, Super-convergence, section 3.
    """
    step, steps = step - wait_steps, max(steps - wait_steps, 1)
    if step < 0:
        return 0.0
    if schedule == "one-cycle":
        rise = _ONE_CYCLE_RISE * steps
        if step < rise:
            return _wave(_ONE_CYCLE_START, 1.0, step / rise)
        return _wave(1.0, _ONE_CYCLE_END, (step - rise) / (steps - rise))
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warm if schedule == "constant" else warm * _wave(1.0, 0.0, step / steps)


def _wave(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


class Learner:
    """A network on its device, prepared for mixed precision and several processes, that learns by losses."""

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        settings: LearningSettings,
        *,
        accelerator: Accelerator,
        factor_at: Callable[[int], float],
    ) -> None:
        """Set up: `groups` are the optimizer's, `factor_at` gives what their rates are multiplied by in a step."""
        self.settings, self._accelerator, self._factor_at = settings, accelerator, factor_at
        optimizer = _make_optimizer(groups, settings)
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._prepared, self._optimizer = accelerator.prepare(model, optimizer)
        # Takes the mixed precision that `prepare` put around the forward pass off again: what is kept is measured in
        # float32 as it will be used. `network` puts it on.
        self.model: nn.Module = accelerator.unwrap_model(self._prepared, keep_fp32_wrapper=False)
        self.average = AveragedModel(self.model, use_buffers=True) if settings.average > 0 else None

    @property
    def result(self) -> nn.Module:
        """The network to keep: the average, where there is one."""
        return self.model if self.average is None else self.average.module

    def network(self, images: Tensor) -> Tensor:
        """Return the logits of images, float32, by a forward pass in the accelerator's precision."""
        with self._accelerator.autocast():
            logits: Tensor = self._prepared(images)
        return logits.float()

    def learn(self, loss: Tensor, step: int) -> float:
        """Change the weights by a loss's gradient; return the rate of the head. Steps are counted from 0."""
        factor = self._factor_at(step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        if self.settings.clip_norm > 0:
            self._accelerator.clip_grad_norm_(self._prepared.parameters(), self.settings.clip_norm)
        self._optimizer.step()
        if self.average is not None:
            decay = min(self.settings.average, (1 + step) / (_WARM_AVERAGE + step))
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self.average.update_parameters(self.model)
        return max(self._rates) * factor

    def restart(self, *, rate: float, factor_at: Callable[[int], float]) -> None:
        """Go on from the result without an average, with another rate, and forget what the optimizer gathered."""
        self.model.load_state_dict(self.result.state_dict())
        self.average = None
        self._optimizer.state.clear()
        self._rates = [own * rate / self.settings.rate for own in self._rates]
        self._factor_at = factor_at

    def state(self) -> dict[str, Any]:
        """Return all that a later process needs to go on exactly, as `torch.load(weights_only=True)` takes it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if self._accelerator.scaler is None else self._accelerator.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])


def _make_optimizer(groups: list[dict[str, Any]], settings: LearningSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.rate)
    return torch.optim.SGD(groups, lr=settings.rate, momentum=settings.momentum, nesterov=settings.momentum > 0)


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let batch norms use each batch's statistics, as in training, without taking them into their running ones."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
