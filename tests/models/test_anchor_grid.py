"""Anchors stand where a head's cells are; SSD's priors are those of the paper and of torchvision."""

import pytest
import torch

from labelmill.models.anchor_grid import place_anchors, place_pyramid, ssd_priors, ssd_scales
from labelmill.schemas.errors import BadInput

SSD300 = {
    "maps": [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)],
    "aspect_ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    "scales": [0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],
}


def test_place_anchors_by_hand():
    boxes = place_anchors(torch.tensor([[4.0, 2.0], [8, 8]]), rows=2, columns=3, stride_px=16)
    assert boxes.shape == (12, 4)
    assert boxes[0].tolist() == [6, 7, 10, 9]
    assert boxes[1].tolist() == [4, 4, 12, 12]
    assert boxes[2].tolist() == [22, 7, 26, 9]  # the next column
    assert boxes[6].tolist() == [6, 23, 10, 25]  # the next row


def test_place_pyramid_smallest_anchors_lie_on_the_finest_map():
    sizes = torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]])
    boxes, levels = place_pyramid(sizes, input_size=(64, 100), strides_px=(32, 16))
    assert levels == (4 * 7 * 2, 2 * 4 * 2)
    widths = boxes[:, 2] - boxes[:, 0]
    assert set(widths[: levels[0]].tolist()) == {1, 2}
    assert set(widths[levels[0] :].tolist()) == {3, 4}


def test_place_pyramid_uneven_split_is_refused():
    with pytest.raises(BadInput, match="5 anchors cannot be split evenly over 2 strides"):
        place_pyramid(torch.ones(5, 2), input_size=(64, 64), strides_px=(8, 16))


def test_ssd_scales_are_those_of_equation_4():
    assert ssd_scales(6) == pytest.approx([0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.04])
    assert ssd_scales(1) == [0.2, 0.2]


def test_ssd_priors_of_ssd300_are_8732():
    priors = ssd_priors(**SSD300)
    assert priors.shape == (8732, 4)
    assert ((priors >= 0) & (priors <= 1)).all()
    width = 0.1 * 2**0.5
    wanted = torch.tensor([0.5 / 38 + width / 2, 0.5 / 38 + width / 4], dtype=torch.float64)  # cut at the edge
    torch.testing.assert_close(priors[2, 2:], wanted)


def test_ssd_priors_are_torchvisions():
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    given = {**SSD300, "scales": [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]}  # torchvision cuts sizes above 1, we corners
    peer = DefaultBoxGenerator(given["aspect_ratios"], scales=given["scales"], clip=False)
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    [boxes] = peer(images, [torch.zeros(1, 1, *size) for size in given["maps"]])
    torch.testing.assert_close(300 * ssd_priors(**given, clip=False).float(), boxes, atol=1e-3, rtol=0)


def test_ssd_priors_numbers_that_do_not_agree_are_refused():
    with pytest.raises(BadInput, match="got 1 maps, 1 sets of ratios, 1 scales"):
        ssd_priors([(2, 2)], scales=[0.2], aspect_ratios=[[2]])
