"""Rates, averages and states of a network that learns."""

from functools import partial

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from labelmill.models.learner import Learner, LearningSettings, find_rate_factor, statistics_kept


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def make_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def make_learner(accelerator, *, factor_at=lambda step: 1.0, seed=0, **settings):
    model = make_model(seed)
    groups = [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.0}]
    return Learner(model, groups, LearningSettings(rate=0.1, **settings), accelerator=accelerator, factor_at=factor_at)


def make_loss(learner, step):
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return learner.network(inputs).square().mean()


def weights_of(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()])


@pytest.mark.parametrize(
    ("given", "step", "factor"),
    [
        ({"schedule": "cosine"}, 0, 1.0),
        ({"schedule": "cosine"}, 50, 0.5),
        ({"schedule": "cosine"}, 100, 0.0),
        ({"schedule": "cosine", "warmup_steps": 10}, 0, 0.1),
        ({"schedule": "constant"}, 99, 1.0),
        ({"schedule": "constant", "wait_steps": 5}, 4, 0.0),
        ({"schedule": "constant", "wait_steps": 5}, 5, 1.0),
        ({"schedule": "one-cycle"}, 0, 0.04),
        ({"schedule": "one-cycle"}, 30, 1.0),
        ({"schedule": "one-cycle"}, 100, 1e-4),
    ],
)
def test_find_rate_factor_at_its_edges(given, step, factor):
    assert find_rate_factor(step, steps=100, **given) == pytest.approx(factor, abs=1e-12)


def test_find_rate_factor_of_one_cycle_is_torch_s():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=201, pct_start=0.3 + 1 / 201 * 0.3, final_div_factor=400,
        cycle_momentum=False,
    )  # fmt: skip
    rates = []
    for _ in range(201):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    ours = [find_rate_factor(step, steps=200, schedule="one-cycle") for step in range(201)]
    assert ours == pytest.approx(rates, abs=0.01)


def test_learn_average_follows_this_network(accelerator):
    learner = make_learner(accelerator, average=0.9)
    expected = weights_of(learner.model)
    for step in range(20):
        learner.learn(make_loss(learner, step), step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = (
            weights_of(learner.model) if step == 0 else decay * expected + (1 - decay) * weights_of(learner.model)
        )
    assert torch.allclose(weights_of(learner.result), expected, atol=1e-6)
    assert not torch.allclose(expected, weights_of(learner.model), atol=1e-4)


def test_learn_without_average_keeps_the_network_itself(accelerator):
    learner = make_learner(accelerator, average=0.0)
    assert learner.result is learner.model


def test_learn_clips_the_gradient(accelerator):
    learner = make_learner(accelerator, clip_norm=1e-3, momentum=0.0)
    before = weights_of(learner.model)
    learner.learn(1000 * make_loss(learner, 0), 0)
    assert float((weights_of(learner.model) - before).norm()) <= 0.1 * 1e-3 * 1.001


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_load_state_goes_on_exactly(accelerator, optimizer):
    factor_at = partial(find_rate_factor, steps=12, schedule="cosine")
    whole = make_learner(accelerator, optimizer=optimizer, average=0.9, factor_at=factor_at)
    first = make_learner(accelerator, optimizer=optimizer, average=0.9, factor_at=factor_at)
    for step in range(6):
        whole.learn(make_loss(whole, step), step)
        first.learn(make_loss(first, step), step)
    second = make_learner(accelerator, optimizer=optimizer, average=0.9, factor_at=factor_at, seed=5)
    second.load_state(first.state())
    for step in range(6, 12):
        whole.learn(make_loss(whole, step), step)
        second.learn(make_loss(second, step), step)
    assert weights_of(whole.model).equal(weights_of(second.model))
    assert weights_of(whole.result).equal(weights_of(second.result))


def test_restart_goes_on_from_the_average_with_the_new_rate(accelerator):
    learner = make_learner(accelerator, average=0.9)
    for step in range(5):
        learner.learn(make_loss(learner, step), step)
    average = weights_of(learner.result).clone()
    learner.restart(rate=1e-3, factor_at=lambda step: 1.0)
    assert weights_of(learner.model).equal(average)
    assert learner.result is learner.model
    assert learner.learn(make_loss(learner, 5), 5) == pytest.approx(1e-3)


def test_statistics_kept_leaves_running_statistics_and_uses_the_batch_s(accelerator):
    model = make_model()
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)) + 5
    before = model[1].running_mean.clone()
    with statistics_kept(model), torch.no_grad():
        seen = model(inputs)
    assert model[1].running_mean.equal(before)
    with torch.no_grad():
        assert seen.equal(model(inputs))
    assert not model[1].running_mean.equal(before)


def test_network_computes_in_the_accelerator_s_precision_and_the_model_in_float32():
    AcceleratorState._reset_state(reset_partial_state=True)
    learner = make_learner(Accelerator(cpu=True, mixed_precision="bf16"), average=0.5)
    seen = []
    learner.model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    logits = learner.network(torch.randn(4, 3))
    learner.model(torch.randn(4, 3))
    AcceleratorState._reset_state(reset_partial_state=True)

    assert (logits.dtype, seen) == (torch.float32, [torch.bfloat16, torch.float32])
