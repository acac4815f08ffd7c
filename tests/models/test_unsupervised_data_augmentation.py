"""UDA by hand: the mask, the sharpened target, the schedules and who is left out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from labelmill.models.unsupervised_data_augmentation import (
    find_annealed_cross_entropy,
    find_annealing_threshold,
    find_consistency,
    find_entropy,
)
from labelmill.schemas.errors import BadInput


def logits_of(*rows):
    """Logits whose softmax is the given probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def test_find_consistency_one_sure_and_one_unsure_image_by_hand():
    weak, strong = logits_of((0.9, 0.1), (0.6, 0.4)), logits_of((0.5, 0.5), (0.5, 0.5))
    found = find_consistency(weak, strong, threshold=0.8, temperature=0.5)
    sharp = 0.81 / 0.82, 0.01 / 0.82
    divergence = sum(p * math.log(p / 0.5) for p in sharp)
    assert float(found.loss) == pytest.approx(divergence / 2, abs=1e-12)  # divided by both, not by the sure one
    assert float(found.kept) == 0.5


def test_find_consistency_mask_takes_the_probability_before_sharpening():
    weak = logits_of((0.7, 0.3))  # sharpened at 0.4: 0.893
    assert float(find_consistency(weak, weak, threshold=0.8, temperature=0.4).kept) == 0
    assert float(find_consistency(weak, weak, threshold=0.69, temperature=0.4).kept) == 1


def test_find_consistency_threshold_is_exclusive():
    weak = torch.tensor([[0.0, 0.0]])
    assert float(find_consistency(weak, weak, threshold=0.5).kept) == 0
    assert float(find_consistency(weak, weak, threshold=0.4999).kept) == 1


def test_find_consistency_gradient_flows_into_the_strong_view_alone():
    weak, strong = logits_of((0.9, 0.1)).requires_grad_(), logits_of((0.4, 0.6)).requires_grad_()
    find_consistency(weak, strong, threshold=0.5, temperature=0.4).loss.backward()
    assert weak.grad is None
    sharp = F.softmax(weak.detach() / 0.4, 1)
    assert torch.allclose(strong.grad, torch.tensor([[0.4, 0.6]], dtype=torch.float64) - sharp)


def test_find_consistency_same_view_without_sharpening_is_zero():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert float(find_consistency(logits, logits, threshold=0).loss) == pytest.approx(0, abs=1e-6)


def test_find_consistency_huge_logits_stay_finite():
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    found = find_consistency(logits, logits.flip(1), threshold=0.8, temperature=0.4)
    found.loss.backward()
    assert torch.isfinite(found.loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strong": torch.zeros(2, 4)}, "logits"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"threshold": 1.5}, "threshold"),
    ],
)
def test_find_consistency_wrong_input_is_refused_by_name(changes, said):
    given_ = {"weak": torch.zeros(2, 3), "strong": torch.zeros(2, 3), "threshold": 0.8, **changes}
    with pytest.raises(BadInput, match=said):
        find_consistency(given_.pop("weak"), given_.pop("strong"), **given_)


def test_find_entropy_even_and_sure_predictions():
    assert float(find_entropy(torch.zeros(3, 8))) == pytest.approx(math.log(8))
    assert float(find_entropy(torch.tensor([[100.0, 0.0]]))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "progress", "alpha"),
    [
        ("linear", 0.0, 0.0),
        ("linear", 0.25, 0.25),
        ("linear", 1.0, 1.0),
        ("log", 0.0, 0.0),
        ("log", 0.5, 1 - math.exp(-2.5)),
        ("log", 1.0, 1 - math.exp(-5)),
        ("exp", 0.0, math.exp(-5)),
        ("exp", 0.5, math.exp(-2.5)),
        ("exp", 1.0, 1.0),
    ],
)
def test_find_annealing_threshold_schedules_at_their_edges(schedule, progress, alpha):
    found = find_annealing_threshold(progress, classes=10, schedule=schedule)
    assert found == pytest.approx(alpha * 0.9 + 0.1)


@given(st.floats(0, 1), st.integers(2, 1000))
def test_find_annealing_threshold_lies_between_chance_and_one_and_log_before_linear_before_exp(progress, classes):
    log, linear, exp = (
        find_annealing_threshold(progress, classes=classes, schedule=s) for s in ("log", "linear", "exp")
    )
    assert all(1 / classes <= found <= 1 + 1e-12 for found in (log, linear, exp))
    assert exp <= linear + math.exp(-5)
    assert log >= linear - math.exp(-5)


@pytest.mark.parametrize(("progress", "classes", "schedule"), [(1.1, 10, "log"), (0.5, 1, "log"), (0.5, 10, "cos")])
def test_find_annealing_threshold_wrong_values_raise(progress, classes, schedule):
    with pytest.raises(BadInput):
        find_annealing_threshold(progress, classes=classes, schedule=schedule)


def test_find_annealed_cross_entropy_leaves_out_by_the_own_class_not_by_the_greatest():
    logits = logits_of((0.9, 0.1), (0.9, 0.1), (0.3, 0.7))
    labels = torch.tensor([0, 1, 1])  # known well; sure but wrong; known a little
    found = find_annealed_cross_entropy(logits, labels, threshold=0.8)
    assert float(found.loss) == pytest.approx(-(math.log(0.1) + math.log(0.7)) / 2)
    assert float(found.kept) == pytest.approx(2 / 3)


def test_find_annealed_cross_entropy_everything_known_is_zero_with_a_gradient():
    logits = logits_of((0.9, 0.1)).requires_grad_()
    found = find_annealed_cross_entropy(logits, torch.tensor([0]), threshold=0.5)
    found.loss.backward()
    assert found.loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_find_annealed_cross_entropy_at_threshold_one_is_the_plain_one(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1])
    found = find_annealed_cross_entropy(logits, labels, threshold=1.0, label_smoothing=smoothing)
    assert torch.allclose(found.loss, F.cross_entropy(logits, labels, label_smoothing=smoothing))
