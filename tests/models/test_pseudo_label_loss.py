"""Losses on stored pseudo labels."""

import math

import pytest
import torch

from labelmill.models.pseudo_label_loss import find_pseudo_label_loss, sharpen
from labelmill.schemas.errors import BadInput

LOGITS = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log()


def test_find_pseudo_label_loss_hard_soft_and_masked_by_hand():
    hard = find_pseudo_label_loss(LOGITS, torch.tensor([0, 1]))
    assert float(hard) == pytest.approx((math.log(2) - math.log(0.2)) / 2)
    soft = find_pseudo_label_loss(LOGITS, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert float(soft) == pytest.approx((math.log(2) - (math.log(0.8) + math.log(0.2)) / 2) / 2)
    masked = find_pseudo_label_loss(LOGITS, torch.tensor([0, 1]), weights=torch.tensor([1.0, 0.0]))
    assert float(masked) == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("labels", [torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2), torch.zeros(3).long()])
def test_find_pseudo_label_loss_labels_of_another_shape_are_refused(labels):
    with pytest.raises(BadInput, match=r"labels: expected \(2,\) ids"):
        find_pseudo_label_loss(LOGITS, labels)


def test_sharpen_by_hand_and_to_the_ends():
    assert torch.allclose(sharpen(torch.tensor([0.9, 0.1]), 0.5), torch.tensor([0.81, 0.01]) / 0.82)
    assert torch.allclose(sharpen(torch.tensor([0.9, 0.1]), 1.0), torch.tensor([0.9, 0.1]))
    assert torch.allclose(sharpen(torch.tensor([0.6, 0.4, 0.0]), 0.01), torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(BadInput, match="temperature"):
        sharpen(torch.tensor([0.5, 0.5]), 0)
