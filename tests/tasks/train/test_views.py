"""Views that fit a student."""

import numpy as np
import pytest
from PIL import Image

from labelmill.schemas.errors import BadInput
from labelmill.tasks.train.views import FittedViews

PIXELS = np.asarray(Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 60).convert("RGB"))


def make_views(policy="auto", *, auto="weak", size=16, seed=0):
    return FittedViews(policy, auto=auto, size=size, seed=seed, field=f"{auto}_policy")


@pytest.mark.parametrize(
    ("auto", "size", "name"),
    [("weak", 64, "weak-cifar"), ("strong", 32, "strong-cifar"), ("weak", 65, "weak"), ("strong", 224, "strong")],
)
def test_fitted_views_auto_policy_goes_by_the_size(auto, size, name):
    assert make_views(auto=auto, size=size).policy.name == name


@pytest.mark.parametrize("size", [16, 72])
def test_make_view_has_the_student_s_size_and_is_the_same_every_time(size):
    view = make_views(size=size).make(PIXELS, epoch=1, image_id="a")
    assert (view.shape, view.dtype) == ((size, size, 3), np.uint8)
    assert np.array_equal(view, make_views(size=size).make(PIXELS, epoch=1, image_id="a"))


def test_make_views_differ_by_epoch_image_and_seed():
    views = [
        make_views(seed=seed).make(PIXELS, epoch=epoch, image_id=name).tobytes()
        for seed in (0, 1) for epoch in (0, 1) for name in "ab"
    ]  # fmt: skip
    assert len(set(views)) == len(views)


def test_make_with_box_says_what_the_same_view_shows():
    views = make_views(size=72)
    pixels, box = views.make_with_box(PIXELS, epoch=2, image_id="a")
    assert np.array_equal(pixels, views.make(PIXELS, epoch=2, image_id="a"))
    assert 0 <= box[0] < box[2] <= 1
    assert 0 <= box[1] < box[3] <= 1


def test_fitted_views_of_another_size_are_refused_by_the_field(tmp_path):
    policy = tmp_path / "small.yaml"
    policy.write_text("- {op: resize, size: 8}\n- flip\n")
    with pytest.raises(BadInput, match="weak_policy: expected views of 16x16 pixels, 'small' gives 8x8"):
        make_views(str(policy))


def test_fitted_views_crops_of_a_file_get_the_student_s_size(tmp_path):
    policy = tmp_path / "crop.yaml"
    policy.write_text("- {op: random_resized_crop, size: 8}\n")
    assert make_views(str(policy)).make(PIXELS, epoch=0, image_id="a").shape == (16, 16, 3)
