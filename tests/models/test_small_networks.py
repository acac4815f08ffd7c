"""Networks for small images: published sizes, shapes, and that everything in them learns."""

import pytest
import torch
from torch.nn import functional as F

from labelmill.models.small_networks import conv4, resnet18_32, wrn_28_2


@pytest.mark.parametrize(
    ("make", "parameters"),
    [(wrn_28_2, 1_467_610), (resnet18_32, 11_173_962), (conv4, 3 * 64 * 9 + 3 * 64 * 64 * 9 + 4 * 128 + 650)],
)
def test_small_network_has_its_published_size(make, parameters):
    assert sum(p.numel() for p in make(10).parameters()) == parameters


@pytest.mark.parametrize("make", [wrn_28_2, resnet18_32, conv4])
def test_small_network_every_parameter_gets_a_gradient(make):
    torch.manual_seed(0)
    model = make(7)
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 7)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_resnet18_32_keeps_the_resolution_before_its_layers():
    model = resnet18_32(10)
    seen = []
    model.layer1.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert seen == [(1, 64, 32, 32)]
