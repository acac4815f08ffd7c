"""Mixup: images and labels are blended by one share."""

import numpy as np
import pytest
import torch

from labelmill.models.mixup import mixup
from labelmill.schemas.errors import BadInput


def test_mixup_labels_have_the_share_of_the_pixels():
    images = (
        torch.eye(6)[:, :3, None, None].expand(-1, -1, 4, 5) + torch.eye(6)[:, 3:, None, None].expand(-1, -1, 4, 5) * 9
    )
    labels = torch.eye(6)
    for seed in range(20):
        mixed, mixed_labels = mixup(images, labels, alpha=1.0, generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(mixed_labels.sum(1), torch.ones(6))
        assert torch.allclose(mixed, torch.einsum("bc,cxhw->bxhw", mixed_labels, images), atol=1e-6)


def test_mixup_shares_are_drawn_from_beta():
    images, labels = torch.zeros(2, 1, 1, 1), torch.eye(2)
    generator = torch.Generator().manual_seed(0)
    shares = np.array([float(mixup(images, labels, alpha=0.2, generator=generator)[1][0].max()) for _ in range(600)])
    expected = np.random.default_rng(0).beta(0.2, 0.2, 20_000)
    # A half of the batches pair each image with itself.
    assert abs((shares < 0.9).mean() - (np.maximum(expected, 1 - expected) < 0.9).mean() / 2) < 0.05


def test_mixup_same_generator_gives_the_same_batch():
    images, labels = torch.rand(4, 3, 2, 2), torch.eye(4)
    one, other = (mixup(images, labels, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("images", "labels", "alpha", "words"),
    [
        (torch.zeros(2, 3, 4), torch.eye(2), 1.0, "images: expected"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.eye(2), 1.0, "of floats, got .* torch.uint8"),
        (torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), 1.0, "labels: expected"),
        (torch.zeros(2, 3, 4, 4), torch.eye(2), 0.0, "alpha: expected a positive number"),
    ],
)
def test_mixup_of_other_shapes_is_refused(images, labels, alpha, words):
    with pytest.raises(BadInput, match=words):
        mixup(images, labels, alpha=alpha)
