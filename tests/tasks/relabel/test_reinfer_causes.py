"""The ways from a picture to a teacher's input: the recorded one is the engine's, each mistake is what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from labelmill.tasks.relabel.load import Loading, load_resized, normalise
from labelmill.tasks.relabel.reinfer_causes import AS_RECORDED, list_views, make_input

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255), "interpolation": "nearest"}


@pytest.fixture
def plain(teacher):
    """A view that keeps pixels from 0 to 255 and takes the nearest."""
    return replace(list_views(teacher.preprocessing)[0], **PLAIN)


def counted(width, height):
    """A picture in which each pixel tells its place: red its x, green its y; blue is 200."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 200)], axis=-1).astype(np.uint8))


def test_make_input_of_the_first_view_is_what_the_engine_gives_the_teacher(teacher, photos):
    view = list_views(teacher.preprocessing)[0]
    loading = Loading(size=(64, 96), interpolation=teacher.preprocessing.interpolation, max_pixels=10**6)
    assert view.said == AS_RECORDED
    for image in photos:
        with Image.open(image.path) as picture:
            made = make_input(picture.convert("RGB"), view, (64, 96))
        torch.testing.assert_close(made, normalise([load_resized(image, loading)], teacher)[0], atol=1e-5, rtol=0)


def test_list_views_names_every_mistake_once_and_none_is_the_recorded_way(teacher):
    own = replace(teacher.preprocessing, mean=(0.1, 0.2, 0.3))
    views = list_views(teacher.preprocessing, own)
    assert len({view.said for view in views}) == len(views)
    assert len({replace(view, said="") for view in views}) == len(views)
    assert views[1].mean == own.mean


def test_make_input_order_and_flip_move_what_they_say(plain):
    picture = counted(6, 4)
    red, green, blue = make_input(picture, plain, (4, 6)).round().int()
    assert (red[1].tolist(), green[:, 2].tolist(), blue.unique().tolist()) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3], [200])
    assert make_input(picture, replace(plain, bgr=True), (4, 6)).round().int()[0].unique().tolist() == [200]
    flipped = make_input(picture, replace(plain, flipped=True), (4, 6)).round().int()
    assert (flipped[0][1].tolist(), flipped[1][:, 2].tolist()) == ([5, 4, 3, 2, 1, 0], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("share", "size", "columns", "rows"),
    [
        pytest.param(1.0, (10, 10), (5, 14), (0, 9), id="square of a wide picture"),
        pytest.param(0.8, (8, 8), (6, 13), (1, 8), id="less of it"),
        pytest.param(1.0, (5, 10), (0, 19), (0, 9), id="the input's own shape"),
    ],
)
def test_make_input_crop_keeps_the_centre(plain, share, size, columns, rows):
    red, green, _ = make_input(counted(20, 10), replace(plain, crop=share), size).round().int()
    assert (red.min().item(), red.max().item()) == pytest.approx(columns, abs=1)
    assert (green.min().item(), green.max().item()) == pytest.approx(rows, abs=1)


def test_make_input_without_antialiasing_equals_it_when_nothing_shrinks_and_not_when_it_does(plain):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    rough = replace(plain, interpolation="bilinear without antialiasing")
    smooth = replace(plain, interpolation="bilinear")
    for size, alike in (((40, 60), True), ((80, 120), True), ((10, 15), False)):
        apart = (
            make_input(Image.fromarray(pixels), rough, size) - make_input(Image.fromarray(pixels), smooth, size)
        ).abs()
        assert (apart.max() <= 1.01) == alike
