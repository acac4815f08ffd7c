"""Boxes in the pixels of an input, by hand and by property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.models.resize_boxes import resize_boxes


@pytest.mark.parametrize(
    ("resize", "input_size", "wanted"),
    [
        ("stretch", (400, 400), [40, 40, 120, 360]),
        ("letterbox", (400, 400), [40, 120, 120, 280]),  # 400 x 200 with bars of 100 above and below
        ("letterbox", (400, 800), [80, 40, 240, 360]),  # enlarged twice, no bars: height x width
        ("letterbox", (200, 800), [240, 20, 320, 180]),  # as it is, bars of 200 at the sides
        ("stretch", (200, 800), [80, 20, 240, 180]),
    ],
)
def test_resize_boxes_by_hand(resize, input_size, wanted):
    box, image = np.array([[40.0, 20, 120, 180]]), np.array([[400.0, 200]])
    assert resize_boxes(box, image, input_size=input_size, resize=resize)[0].tolist() == pytest.approx(wanted)


def test_resize_boxes_beyond_the_edge_are_cut_at_the_images_edge_not_the_inputs():
    box, image = np.array([[-50.0, -50, 500, 500]]), np.array([[400.0, 200]])
    found = resize_boxes(box, image, input_size=(400, 400), resize="letterbox")
    assert found[0].tolist() == [0, 100, 400, 300]


@settings(max_examples=50, deadline=None)
@given(
    image=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    input_size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_resize_boxes_letterbox_keeps_the_shape_and_all_stay_inside(image, input_size, corners):
    size = np.array([image], float)
    box = np.array([[*sorted(corners[:2]), *sorted(corners[2:])]])[:, [0, 2, 1, 3]] * np.tile(size, 2)
    room = np.array([input_size[1], input_size[0]])
    for resize in ("letterbox", "stretch"):
        found = resize_boxes(box, size, input_size=input_size, resize=resize).reshape(2, 2)
        assert (found >= -1e-9).all()
        assert (found <= room * (1 + 1e-12) + 1e-9).all()
    letterbox = resize_boxes(box, size, input_size=input_size, resize="letterbox").reshape(2, 2)
    scale = (room / size[0]).min()
    np.testing.assert_allclose(letterbox[1] - letterbox[0], (box[0, 2:] - box[0, :2]) * scale, atol=1e-7)
