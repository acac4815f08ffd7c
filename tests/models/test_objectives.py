"""What each objective lowers, against values worked out by hand."""

import math

import pytest
import torch

from labelmill.models.objectives import (
    ConsistencySettings,
    Predictions,
    find_mpl_teacher_losses,
    find_pseudo_losses,
    find_supervised_losses,
    find_uda_losses,
)

LABELLED = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
LABELS = torch.tensor([0, 0])
WEAK = torch.tensor([[3.0, 0.0], [0.2, 0.0]])
STRONG = torch.tensor([[0.0, 0.0], [1.0, 0.0]])


def log_softmax(logits):
    total = math.log(sum(math.exp(z) for z in logits))
    return [z - total for z in logits]


def cross_entropy_by_hand():
    return -(log_softmax([2, 0])[0] + log_softmax([0, 1])[0]) / 2


def consistency_by_hand(temperature):
    """Only the first image is sure: its share of class 0 is 0.953, that of the second 0.55."""
    target = [math.exp(z) for z in log_softmax([3 / temperature, 0])]
    return sum(p * (math.log(p) - math.log(0.5)) for p in target) / 2


def test_find_supervised_losses_of_ids_is_the_mean_log_loss():
    losses = find_supervised_losses(LABELLED, LABELS)
    assert float(losses.total) == pytest.approx(cross_entropy_by_hand())


def test_find_supervised_losses_of_pooled_labels_weighs_each_class():
    losses = find_supervised_losses(LABELLED[:1], torch.tensor([[0.25, 0.75]]))
    assert float(losses.total) == pytest.approx(-(0.25 * log_softmax([2, 0])[0] + 0.75 * log_softmax([2, 0])[1]))


def test_find_pseudo_losses_adds_the_weighted_term():
    losses = find_pseudo_losses(LABELLED, LABELS, STRONG, torch.tensor([[1.0, 0.0], [0.5, 0.5]]), weight=3.0)
    soft = -(log_softmax([0, 0])[0] + 0.5 * sum(log_softmax([1, 0]))) / 2
    assert float(losses.total) == pytest.approx(cross_entropy_by_hand() + 3 * soft)


def test_find_pseudo_losses_without_labelled_images_is_the_other_term_alone():
    losses = find_pseudo_losses(None, None, STRONG, torch.tensor([1, 1]), weight=2.0)
    assert float(losses.total) == pytest.approx(-(log_softmax([0, 0])[1] + log_softmax([1, 0])[1]))
    assert "labelled_loss" not in losses.facts


def test_find_uda_losses_adds_up_by_hand():
    settings = ConsistencySettings(weight=2.0, threshold=0.8, temperature=0.5, entropy_weight=0.1)
    losses = find_uda_losses(Predictions(LABELLED, WEAK, STRONG), LABELS, settings=settings, step=0, steps=10)
    shares = [[math.exp(z) for z in log_softmax(row)] for row in WEAK.tolist()]
    entropy = sum(-p * math.log(p) for row in shares for p in row) / 2
    expected = cross_entropy_by_hand() + 2 * consistency_by_hand(0.5) + 0.1 * entropy
    assert float(losses.total) == pytest.approx(expected, rel=1e-6)
    assert float(losses.facts["unlabelled_share"]) == 0.5


def test_find_uda_losses_without_weight_is_the_supervised_loss_exactly():
    settings = ConsistencySettings(weight=0.0)
    losses = find_uda_losses(Predictions(LABELLED, WEAK, STRONG), LABELS, settings=settings, step=3, steps=10)
    assert losses.total.equal(find_supervised_losses(LABELLED, LABELS).total)


def test_find_uda_losses_annealing_leaves_out_what_is_known_at_the_start():
    settings = ConsistencySettings(weight=0.0, annealing="linear")
    losses = find_uda_losses(Predictions(LABELLED), LABELS, settings=settings, step=0, steps=10)
    assert float(losses.total) == pytest.approx(-log_softmax([0, 1])[0])  # the first is above 1 / 2 already
    assert float(losses.facts["labelled_share"]) == 0.5
    late = find_uda_losses(Predictions(LABELLED), LABELS, settings=settings, step=9, steps=10)
    assert float(late.total) == pytest.approx(cross_entropy_by_hand())


@pytest.mark.parametrize(
    ("ramp_steps", "step", "weight"), [(0, 0, 8.0), (4, 0, 2.0), (4, 3, 8.0), (4, 100, 8.0)],
    ids=["none", "first", "last", "after"],
)  # fmt: skip
def test_weight_at_rises_evenly(ramp_steps, step, weight):
    assert ConsistencySettings(weight=8.0, ramp_steps=ramp_steps).weight_at(step) == weight


@pytest.mark.parametrize("advantage", [0.5, -0.5], ids=["helped", "harmed"])
def test_find_mpl_teacher_losses_is_uda_s_and_the_feedback_with_its_sign(advantage):
    settings = ConsistencySettings(weight=1.0, threshold=0.8, temperature=0.5)
    predictions = Predictions(LABELLED, WEAK, STRONG)
    pseudo_labels = torch.tensor([1, 0])
    own = find_uda_losses(predictions, LABELS, settings=settings, step=0, steps=10)
    losses = find_mpl_teacher_losses(
        predictions, LABELS, pseudo_labels, advantage=advantage, settings=settings, step=0, steps=10
    )
    feedback = -(log_softmax([0, 0])[1] + log_softmax([1, 0])[0]) / 2
    assert float(losses.total - own.total) == pytest.approx(advantage * feedback, rel=1e-5)
