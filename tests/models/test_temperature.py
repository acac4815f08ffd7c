"""The temperature fit finds a known temperature, and the optimum of a grid search."""

import pytest
import torch

from labelmill.models.temperature import TEMPERATURE_RANGE, fit_temperature
from labelmill.schemas.errors import BadInput


@pytest.mark.parametrize("truth", [0.1, 0.42, 1.0, 3.0, 15.0])
def test_fit_temperature_of_targets_made_at_a_temperature_finds_it(truth):
    logits = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)) * 3
    assert fit_temperature(logits, (logits / truth).softmax(1)) == pytest.approx(truth, rel=1e-4)


def test_fit_temperature_of_other_targets_is_the_best_of_a_grid():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 10, generator=generator) * 2
    targets = (torch.randn(40, 10, generator=generator) + logits).softmax(1)

    def loss(temperature: float) -> float:
        return float(-(targets * (logits / temperature).log_softmax(1)).sum(1).mean())

    fitted = fit_temperature(logits, targets)
    assert loss(fitted) <= min(loss(0.05 * 1.02**step) for step in range(300)) + 1e-6


def test_fit_temperature_of_certain_targets_stays_in_its_range():
    logits = torch.eye(5)
    low = fit_temperature(logits, torch.eye(5))
    high = fit_temperature(logits, torch.eye(5).flip(0))
    assert low == pytest.approx(TEMPERATURE_RANGE[0])
    assert high == pytest.approx(TEMPERATURE_RANGE[1])


@pytest.mark.parametrize("shape", [(0, 3), (2, 4)], ids=["no images", "other classes"])
def test_fit_temperature_of_shapes_that_do_not_fit_is_refused(shape):
    with pytest.raises(BadInput, match="temperature"):
        fit_temperature(torch.zeros(shape), torch.full((2, 3) if shape[0] else (0, 3), 1 / 3))
