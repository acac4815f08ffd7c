"""Shapes of objects: what COCO writes is read, and what is damaged harms nothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask
from tests.tasks.augmentation.view_strategies import quick

from labelmill.schemas.views import CropStep, FlipStep
from labelmill.tasks.augmentation.carry_shape import carry_shape, draw_shape

masks = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 1))


@quick
@given(masks)
def test_draw_shape_of_an_encoded_mask_is_the_mask(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask))
    text = json.dumps({"size": encoded["size"], "counts": encoded["counts"].decode()})
    assert np.array_equal(draw_shape(text, mask.shape[::-1]), mask)
    runs = [len(list(run)) for run in np.split(mask.T.ravel(), np.flatnonzero(np.diff(mask.T.ravel())) + 1)]
    plain = {"size": list(mask.shape), "counts": [0] * int(mask[0, 0]) + runs}
    assert np.array_equal(draw_shape(json.dumps(plain), mask.shape[::-1]), mask)


@quick
@given(masks)
def test_carry_shape_mirrored_is_the_mirrored_mask(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask))
    text = json.dumps({"size": encoded["size"], "counts": encoded["counts"].decode()})
    carried, area = carry_shape(text, (FlipStep(),), size=mask.shape[::-1])
    assert np.array_equal(draw_shape(carried, mask.shape[::-1]), mask[:, ::-1])
    assert area == mask.sum()


def test_carry_shape_out_of_sight_has_no_area():
    steps = (CropStep(left=0, top=0, width=5, height=5),)
    assert carry_shape("[[6, 6, 9, 6, 9, 9, 6, 9]]", steps, size=(10, 10))[1] == 0


@pytest.mark.parametrize(
    "text",
    [
        "[]", "[[]]", "[[1, 2, 3, 4]]", "[[1, 2, 3, 4, 5]]", "[[1, 2, 3, 4, 5, null]]", '[[1, 2, 3, 4, 5, "6"]]',
        "[[1e300, 2, 3, 4, 5, 6]]", "[[NaN, 2, 3, 4, 5, 6]]", "5", "null", '"x"', "{", "{}", "[5]",
        '{"size": [5, 5], "counts": [1, 2]}', '{"size": [5, 5], "counts": [30]}',
        '{"size": [5, 5], "counts": [-5, 30]}', '{"size": [4, 5], "counts": [20]}', '{"size": [5, 5], "counts": "zzz"}',
        '{"size": [5, 5], "counts": "ooooooooooooooooooooooo"}', '{"size": [5, 5], "counts": "é"}',
        '{"size": [5, 5], "counts": [true, 24]}', '{"size": null, "counts": null}',
    ],
)  # fmt: skip
def test_draw_shape_damaged_is_none(text):
    assert draw_shape(text, (5, 5)) is None
