"""Offsets go out and come back, and are those of the papers and of torchvision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.models.box_offsets import (
    LOG_RATIO_LIMIT,
    SSD_VARIANCES,
    decode_in_cells,
    decode_offsets,
    encode_in_cells,
    encode_offsets,
)

NUMBERS = st.lists(st.floats(0.5, 500), min_size=8, max_size=8)


def to_boxes(numbers):
    x, y, w, h = torch.tensor(numbers, dtype=torch.float64).reshape(2, 4).T
    return torch.stack([x, y, x + w, y + h], 1)


def test_encode_offsets_by_hand():
    boxes, anchors = torch.tensor([[2.0, 4, 6, 20]]), torch.tensor([[0.0, 0, 2, 8]])
    wanted = [1.5, 1.0, math.log(2), math.log(2)]
    assert encode_offsets(boxes, anchors)[0].tolist() == pytest.approx(wanted)
    with_variances = encode_offsets(boxes, anchors, variances=SSD_VARIANCES)[0].tolist()
    assert with_variances == pytest.approx([15, 10, 5 * math.log(2), 5 * math.log(2)])


@settings(max_examples=50, deadline=None)
@given(
    boxes=NUMBERS.map(to_boxes), anchors=NUMBERS.map(to_boxes), variances=st.sampled_from([(1.0,) * 4, SSD_VARIANCES])
)
def test_decode_offsets_gives_back_the_boxes(boxes, anchors, variances):
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    back = decode_offsets(encode_offsets(boxes, anchors, variances=variances), anchors, variances=variances)
    sayable = (ratio <= 62.5).all(1)
    torch.testing.assert_close(back[sayable], boxes[sayable], rtol=1e-9, atol=1e-9)


def test_offsets_are_torchvisions():
    from torchvision.models.detection._utils import BoxCoder

    random = torch.Generator().manual_seed(0)
    boxes, anchors = (torch.rand(50, 4, generator=random, dtype=torch.float64) * 50 for _ in range(2))
    boxes[:, 2:] += boxes[:, :2] + 1
    anchors[:, 2:] += anchors[:, :2] + 1
    peer = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    offsets = encode_offsets(boxes, anchors, variances=SSD_VARIANCES)
    torch.testing.assert_close(offsets, peer.encode_single(boxes, anchors))
    torch.testing.assert_close(
        decode_offsets(3 * offsets, anchors, variances=SSD_VARIANCES), peer.decode_single(3 * offsets, anchors)
    )


def test_decode_offsets_huge_outputs_stay_finite():
    boxes = decode_offsets(torch.tensor([[0.0, 0, 1e4, 1e4]]), torch.tensor([[0.0, 0, 10, 10]]))
    assert boxes[0].tolist() == pytest.approx([5 - 312.5, 5 - 312.5, 5 + 312.5, 5 + 312.5])
    assert math.exp(LOG_RATIO_LIMIT) == pytest.approx(62.5)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("yolov3", [math.log(0.25 / 0.75), 0.0, math.log(2), math.log(0.5)]),
        (
            "yolov5",
            [
                math.log(0.375 / 0.625),
                0.0,
                math.log(0.5**0.5 / (1 - 0.5**0.5)),
                math.log(0.125**0.5 / (1 - 0.125**0.5)),
            ],
        ),
    ],
)
def test_encode_in_cells_by_hand(form, wanted):
    box = torch.tensor([[72.0 - 20, 48 - 5, 72 + 20, 48 + 5]], dtype=torch.float64)  # centre (2.25, 1.5) cells of 32
    found = encode_in_cells(box, torch.tensor([[20.0, 20]]), torch.tensor([[2.0, 1]]), stride_px=32, form=form)
    assert found[0].tolist() == pytest.approx(wanted)


@settings(max_examples=50, deadline=None)
@given(
    form=st.sampled_from(["yolov3", "yolov5"]),
    place=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    ratio=st.tuples(st.floats(0.05, 3.9), st.floats(0.05, 3.9)),
    cell=st.tuples(st.integers(0, 51), st.integers(0, 51)),
    stride=st.sampled_from([8, 16, 32]),
)
def test_decode_in_cells_gives_back_the_boxes(form, place, ratio, cell, stride):
    cells, anchors = torch.tensor([cell], dtype=torch.float64), torch.tensor([[30.0, 61]], dtype=torch.float64)
    centre = (cells + torch.tensor([place], dtype=torch.float64)) * stride
    half = anchors * torch.tensor([ratio], dtype=torch.float64) / 2
    boxes = torch.cat([centre - half, centre + half], 1)
    raw = encode_in_cells(boxes, anchors, cells, stride_px=stride, form=form)
    torch.testing.assert_close(decode_in_cells(raw, anchors, cells, stride_px=stride, form=form), boxes)


def test_encode_in_cells_what_cannot_be_said_is_finite():
    boxes, anchors = torch.tensor([[0.0, 0, 640, 640]]), torch.tensor([[10.0, 10]])
    for form in ("yolov3", "yolov5"):
        assert encode_in_cells(boxes, anchors, torch.zeros(1, 2), stride_px=8, form=form).isfinite().all()
