"""CropWithBox: torchvision's crops, and a box that is where the pixels came from."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from labelmill.models.crops import Crop, CropWithBox
from labelmill.schemas.errors import BadInput

WIDTH, HEIGHT = 120, 80


def gradient():
    """A tensor image whose first channel is x and second is y, in [0, 1] of the image at each pixel's centre."""
    x = (torch.arange(WIDTH) + 0.5) / WIDTH
    y = (torch.arange(HEIGHT) + 0.5) / HEIGHT
    return torch.stack([x.expand(HEIGHT, WIDTH), y[:, None].expand(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)])


def picture():
    return F.to_pil_image((gradient() * 255).round().to(torch.uint8))


@pytest.mark.parametrize("flip", [0.0, 1.0], ids=["as it is", "flipped"])
def test_crop_with_box_box_is_where_the_pixels_came_from(flip):
    torch.manual_seed(0)
    crop_with_box = CropWithBox((20, 30), flip=flip, interpolation=InterpolationMode.BILINEAR)
    for _ in range(40):
        image, box, flipped = crop_with_box(gradient())
        assert flipped == bool(flip)
        assert image.shape == (3, 20, 30)
        x1, y1, x2, y2 = box.tolist()
        assert float(image[0].mean()) == pytest.approx((x1 + x2) / 2, abs=0.005)
        assert float(image[1].mean()) == pytest.approx((y1 + y2) / 2, abs=0.005)
        left, right = float(image[0, :, 0].mean()), float(image[0, :, -1].mean())
        assert (left > right) == flipped
        assert abs(right - left) == pytest.approx((x2 - x1) * 29 / 30, abs=0.02)
        assert float(image[1, -1].mean() - image[1, 0].mean()) == pytest.approx((y2 - y1) * 19 / 20, abs=0.02)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(gradient, {}, id="tensor"),
        pytest.param(gradient, {"interpolation": InterpolationMode.NEAREST, "ratio": (0.5, 3.0)}, id="nearest"),
        pytest.param(gradient, {"scale": (0.3, 0.5), "antialias": False}, id="without antialias"),
        pytest.param(picture, {"scale": (0.3, 0.5)}, id="pil"),
    ],
)
def test_crop_with_box_without_flip_gives_the_pixels_of_random_resized_crop(make, options):
    for seed in range(20):
        torch.manual_seed(seed)
        expected = v2.RandomResizedCrop(32, **options)(make())
        torch.manual_seed(seed)
        got = CropWithBox(32, flip=0.0, **options)(make()).image
        assert np.array_equal(np.asarray(got), np.asarray(expected))


def test_crop_with_box_of_a_pil_image_and_of_its_tensor_is_the_same_box():
    torch.manual_seed(3)
    first = CropWithBox(16)(picture())
    torch.manual_seed(3)
    second = CropWithBox(16)(F.pil_to_tensor(picture()))
    assert isinstance(first.image, Image.Image)
    assert torch.equal(first.box, second.box)
    assert first.flipped == second.flipped


def test_crop_with_box_flips_as_often_as_asked():
    torch.manual_seed(0)
    flips = [CropWithBox(4, flip=0.3)(gradient()).flipped for _ in range(500)]
    assert 0.22 < sum(flips) / 500 < 0.38


def test_crop_with_box_then_gets_the_finished_crop():
    seen = []
    crop = CropWithBox(8, then=lambda image: seen.append(image) or image.mean())(gradient())
    assert seen[0].shape == (3, 8, 8)
    assert crop.image == seen[0].mean()


def test_crop_with_box_of_many_collates_into_a_batch():
    batch = default_collate([(CropWithBox(8)(gradient()), 7) for _ in range(3)])
    crops, targets = batch
    assert isinstance(crops, Crop)
    assert (crops.image.shape, crops.box.shape, crops.flipped.shape) == ((3, 3, 8, 8), (3, 4), (3,))
    assert (crops.box.dtype, crops.flipped.dtype, targets.tolist()) == (torch.float32, torch.bool, [7, 7, 7])


def test_crop_with_box_goes_through_a_pickle():
    crop_with_box = CropWithBox(8, scale=(0.1, 0.2), then=v2.PILToTensor())
    torch.manual_seed(1)
    expected = crop_with_box(picture())
    torch.manual_seed(1)
    got = pickle.loads(pickle.dumps(crop_with_box))(picture())
    assert torch.equal(got.image, expected.image)
    assert torch.equal(got.box, expected.box)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"size": 0}, "size: expected", id="no size"),
        pytest.param({"size": (3, 4, 5)}, "size: expected", id="three sizes"),
        pytest.param({"size": 2.5}, "size: expected", id="half a pixel"),
        pytest.param({"scale": (0.0, 1.0)}, "scale: expected", id="scale zero"),
        pytest.param({"scale": (0.5, 0.1)}, "scale: expected", id="scale turned round"),
        pytest.param({"scale": (0.5, 1.5)}, "scale: expected", id="scale above the image"),
        pytest.param({"scale": 0.5}, "scale: expected", id="scale one number"),
        pytest.param({"scale": (float("nan"), 1.0)}, "scale: expected", id="scale no number"),
        pytest.param({"ratio": (-1.0, 1.0)}, "ratio: expected", id="ratio negative"),
        pytest.param({"ratio": (1.0, float("inf"))}, "ratio: expected", id="ratio infinite"),
        pytest.param({"flip": 1.5}, "flip: expected", id="flip above one"),
        pytest.param({"then": "normalise"}, "then: expected", id="then no function"),
    ],
)
def test_crop_with_box_of_parameters_that_are_none_is_refused(options, said):
    with pytest.raises(BadInput, match=said):
        CropWithBox(**{"size": 8, **options})
