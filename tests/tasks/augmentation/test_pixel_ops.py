"""Steps do to pixels what torchvision does to PIL images, which the published policies were made with."""

import math

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from labelmill.schemas.views import AdjustStep, CropStep, CutoutStep, ResizeStep, ToneStep, WarpStep
from labelmill.tasks.augmentation import pixel_ops


@pytest.fixture(scope="module")
def picture():
    """A photo-like image of odd size: smooth colours with an edge, and noise."""
    rows, columns = np.mgrid[0:61, 0:83]
    smooth = np.stack([columns * 3, rows * 4, 255 - columns - rows], axis=-1)
    smooth[20:40, 30:60] = (250, 40, 90)
    noise = np.random.default_rng(0).integers(-12, 13, smooth.shape)
    return (smooth + noise).clip(3, 248).astype(np.uint8)


def test_set_tone_every_operation_gives_pillows_pixels(picture):
    for name, theirs in (("equalize", F.equalize), ("auto_contrast", F.autocontrast), ("invert", F.invert)):
        given = picture.copy()
        ours = pixel_ops.set_tone(given, ToneStep(op=name))
        assert np.array_equal(ours, np.asarray(theirs(Image.fromarray(picture)))), name
        assert np.array_equal(given, picture), f"{name} wrote into its argument"


@pytest.mark.parametrize("name", ["equalize", "auto_contrast"])
def test_set_tone_image_of_one_colour_stays(name):
    flat = np.full((5, 7, 3), 255, np.uint8)
    assert np.array_equal(pixel_ops.set_tone(flat, ToneStep(op=name)), flat)


@pytest.mark.parametrize("amount", [0.1, 0.73, 1.0, 1.9])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("brightness", F.adjust_brightness), ("contrast", F.adjust_contrast), ("color", F.adjust_saturation),
        ("sharpness", F.adjust_sharpness),
    ],
)  # fmt: skip
def test_adjust_factor_gives_pillows_pixels_to_within_two(picture, name, theirs, amount):
    given = picture.copy()
    ours = pixel_ops.adjust(given, AdjustStep(op=name, amount=amount)).astype(int)
    expected = np.asarray(theirs(Image.fromarray(picture), amount)).astype(int)
    assert np.abs(ours - expected).max() <= 2  # of grey and of the mix, each rounded another way
    assert np.abs(ours - expected).mean() < 0.6
    assert np.array_equal(given, picture)


@pytest.mark.parametrize(("name", "amount"), [("posterize", 8), ("posterize", 4), ("solarize", 0), ("solarize", 127.5)])
def test_adjust_bits_and_threshold_give_pillows_pixels(picture, name, amount):
    theirs = (
        F.posterize(Image.fromarray(picture), int(amount))
        if name == "posterize"
        else F.solarize(Image.fromarray(picture), amount)
    )
    assert np.array_equal(pixel_ops.adjust(picture, AdjustStep(op=name, amount=amount)), np.asarray(theirs))


@pytest.mark.parametrize("filter_", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("name", "amount"),
    [("rotate", 30), ("rotate", -7.5), ("shear_x", 0.3), ("shear_y", -0.23), ("translate_x", 17), ("translate_y", -9)],
)
def test_warp_moves_pixels_as_torchvision_does(picture, name, amount, filter_):
    image, fill = Image.fromarray(picture), (128, 100, 7)
    mode = {"interpolation": getattr(InterpolationMode, {"nearest": "NEAREST", "linear": "BILINEAR"}[filter_])}
    if name == "rotate":
        theirs = F.rotate(image, amount, fill=fill, **mode)
    else:
        degrees = -math.degrees(math.atan(amount))  # torchvision shears to the left
        shear = {"shear_x": [degrees, 0.0], "shear_y": [0.0, degrees]}.get(name, [0.0, 0.0])
        shift = {"translate_x": [amount, 0], "translate_y": [0, amount]}.get(name, [0, 0])
        centre = [0, 0] if "shear" in name else None
        theirs = F.affine(image, angle=0, translate=shift, scale=1, shear=shear, center=centre, fill=fill, **mode)
    ours = pixel_ops.warp(picture, WarpStep(op=name, amount=amount, fill=fill, filter=filter_))
    off = np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max(-1)
    # The rim is mixed with the fill by OpenCV, and not by Pillow; the noise makes neighbours differ by up to 24.
    assert (off > (6 if filter_ == "linear" else 0)).mean() < (0.05 if filter_ == "linear" else 0.02)


def test_crop_beyond_the_edge_is_the_mirror_image(picture):
    ours = pixel_ops.crop(picture, CropStep(left=1, top=7, width=83, height=61, reflect=4))
    padded = np.pad(picture, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    assert np.array_equal(ours, padded[7:68, 1:84])


def test_resize_to_half_is_the_mean_of_four(picture):
    even = picture[:60, :82]
    ours = pixel_ops.resize(even, ResizeStep(width=41, height=30, filter="area")).astype(int)
    means = even.reshape(30, 2, 41, 2, 3).astype(float).mean((1, 3))
    assert np.abs(ours - means).max() <= 0.51


def test_cut_out_fills_the_rectangle_alone(picture):
    given = picture.copy()
    ours = pixel_ops.cut_out(given, CutoutStep(left=5, top=8, width=11, height=4, fill=(1, 2, 3)))
    expected = picture.copy()
    expected[8:12, 5:16] = (1, 2, 3)
    assert np.array_equal(ours, expected)
    assert np.array_equal(given, picture)
