"""CutMix: what was pasted, and how labels follow its area."""

import numpy as np
import pytest
import torch

from labelmill.models.cutmix import cutmix
from labelmill.schemas.errors import BadInput


def batch(count=6, height=24, width=40):
    """Image i is filled with i, and its label is class i."""
    images = torch.arange(count).float()[:, None, None, None].expand(-1, 3, height, width).contiguous()
    return images, torch.eye(count)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_cutmix_labels_have_the_share_of_the_pixels(alpha):
    images, labels = batch()
    shares = []
    for seed in range(60):
        mixed, mixed_labels = cutmix(images, labels, alpha=alpha, generator=torch.Generator().manual_seed(seed))
        for row in range(len(images)):
            pixels = torch.bincount(mixed[row, 0].flatten().long(), minlength=6) / (24 * 40)
            assert torch.allclose(mixed_labels[row], pixels, atol=1e-6)
        shares.append(float(1 - mixed_labels.max(1).values.min()))
    assert max(shares) > 0.3  # something was pasted


def test_cutmix_pastes_the_same_upright_box_of_the_image_s_shape_in_all_three_channels():
    images, labels = batch()
    whole = 0
    for seed in range(40):
        mixed, _ = cutmix(images, labels, generator=torch.Generator().manual_seed(seed))
        changed = (mixed != images).any(0)
        assert torch.equal(changed[0], changed[2])
        rows, columns = changed[0].any(1).sum(), changed[0].any(0).sum()
        assert int(changed[0].sum()) == rows * columns  # a rectangle
        inner = changed[0, 0].sum() + changed[0, -1].sum() + changed[0, :, 0].sum() + changed[0, :, -1].sum() == 0
        if inner and rows:  # not cut at the border
            whole += 1
            assert float(columns) == pytest.approx(float(rows) * 40 / 24, abs=3)
    assert whole > 3


def test_cutmix_alpha_one_pastes_an_even_share_before_the_border():
    """Boxes that touch no border have an area drawn evenly: its median lies where the paper's does, below a half."""
    images, labels = batch(2, 100, 100)
    generator = torch.Generator().manual_seed(0)
    kept = []
    for _ in range(400):
        _, mixed_labels = cutmix(images, labels, generator=generator)
        kept.append(float(mixed_labels[0].max()))
    # Drawn by the paper's code in numpy: 10,000 boxes.
    random = np.random.default_rng(0)
    expected = []
    for _ in range(10_000):
        side = int(100 * np.sqrt(1 - random.beta(1.0, 1.0)))
        x, y = random.integers(100, size=2)
        ends = np.clip([x - side // 2, x + side // 2, y - side // 2, y + side // 2], 0, 100)
        share = (ends[1] - ends[0]) * (ends[3] - ends[2]) / 10_000
        expected.append(max(share, 1 - share))
    unmixed = torch.tensor(kept).eq(1).float().mean()  # the other image was itself, or the box was empty
    assert 0.4 < unmixed < 0.65
    mixed_only = [share for share in kept if share < 1]
    assert np.median(mixed_only) == pytest.approx(np.median([e for e in expected if e < 1]), abs=0.05)


def test_cutmix_leaves_its_input_alone():
    images, labels = batch()
    before = images.clone(), labels.clone()
    mixed, mixed_labels = cutmix(images, labels, generator=torch.Generator().manual_seed(1))
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert not torch.equal(mixed, images)
    assert not torch.equal(mixed_labels, labels)


def test_cutmix_same_generator_gives_the_same_batch():
    one, two = (cutmix(*batch(), generator=torch.Generator().manual_seed(5)) for _ in range(2))
    other = cutmix(*batch(), generator=torch.Generator().manual_seed(6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_cutmix_without_generator_follows_the_global_seed():
    torch.manual_seed(2)
    first = cutmix(*batch())[0]
    torch.manual_seed(2)
    assert torch.equal(cutmix(*batch())[0], first)


@pytest.mark.parametrize(
    ("images", "labels", "options", "said"),
    [
        pytest.param(torch.zeros(3, 8, 8), torch.eye(3), {}, "images: expected", id="no batch"),
        pytest.param(torch.zeros(3, 3, 8, 8), torch.eye(4), {}, r"labels: expected \(3, C\)", id="more labels"),
        pytest.param(torch.zeros(3, 3, 8, 8), torch.arange(3), {}, "labels: expected", id="class ids"),
        pytest.param(torch.zeros(3, 3, 8, 8), torch.eye(3).long(), {}, "labels: expected", id="integers"),
        pytest.param(torch.zeros(3, 3, 8, 8), torch.eye(3), {"alpha": 0.0}, "alpha: expected", id="alpha zero"),
        pytest.param(torch.zeros(3, 3, 8, 8), torch.eye(3), {"alpha": float("inf")}, "alpha", id="alpha infinite"),
    ],
)
def test_cutmix_of_what_does_not_fit_is_refused(images, labels, options, said):
    with pytest.raises(BadInput, match=said):
        cutmix(images, labels, **options)
