"""LabelPooling against torchvision's RoIAlign on the densified map, and its own invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from labelmill.models.label_encoding import encode_maps, gather_maps, top_cells
from labelmill.models.label_pooling import LabelMapBatch, pool_label_maps, pool_logits, roi_weights
from labelmill.schemas.errors import BadInput

STEP = 1 / 32


def make_maps(batch: int, classes: int, grid: tuple[int, int], top_k: int, seed: int = 0) -> LabelMapBatch:
    dense = torch.randn(batch, classes, *grid, generator=torch.Generator().manual_seed(seed)) * 4
    top = top_cells(dense, top_k)
    maps = encode_maps(top, step=STEP)
    return gather_maps(maps, grid=grid, top_k=min(top_k, classes), step=STEP, num_classes=classes)


def densify(maps: LabelMapBatch) -> Tensor:
    """The stored map as the authors' reader makes it: (B, C, H, W), zero where a class is not in the top-k."""
    batch, height, width, _ = maps.logits.shape
    dense = torch.zeros(batch, height, width, maps.num_classes)
    classes = maps.classes[:, None, None, :].expand(-1, height, width, -1)
    return dense.scatter_(3, classes.gather(3, maps.index), maps.logits).permute(0, 3, 1, 2).contiguous()


def pool_dense(dense: Tensor, boxes: Tensor) -> Tensor:
    """RoIAlign as the paper's code calls it."""
    height, width = dense.shape[2:]
    places = boxes * torch.tensor([width, height, width, height]) - 0.5
    rois = torch.cat([torch.arange(len(boxes))[:, None], places], 1)
    return roi_align(dense, rois, output_size=1, spatial_scale=1.0, sampling_ratio=-1, aligned=False).flatten(1)


coordinate = st.one_of(
    st.floats(-0.625, 1.625, width=32), st.sampled_from([0.0, 1.0, 0.5, 1 / 3, 2 / 7, 1 / 15, -0.25, 1.25])
)


@settings(max_examples=300, deadline=None)
@given(
    box=st.tuples(coordinate, coordinate, coordinate, coordinate),
    grid=st.sampled_from([(1, 1), (3, 5), (7, 7), (15, 15), (4, 2)]),
    top_k=st.sampled_from([1, 3, 5]),
)
def test_pool_label_maps_paper_mode_equals_roi_align_of_the_dense_map(box, grid, top_k):
    maps = make_maps(1, 11, grid, top_k)
    boxes = torch.tensor([box])
    got = pool_label_maps(maps, boxes, absent_share=0.0)
    assert torch.allclose(got, pool_dense(densify(maps), boxes).softmax(1), atol=1e-5)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((0.0, 0.0, 1.0, 1.0), id="whole image"),
        pytest.param((0.3, 0.4, 0.3, 0.4), id="zero size"),
        pytest.param((0.9, 0.9, 0.1, 0.1), id="ends swapped"),
        pytest.param((0.50, 0.50, 0.51, 0.51), id="smaller than a cell"),
        pytest.param((-2.0, -3.0, 4.0, 5.0), id="far beyond the border"),
        pytest.param((1.5, 1.5, 2.0, 2.0), id="outside"),
    ],
)
def test_pool_label_maps_odd_boxes_equal_roi_align(box):
    maps = make_maps(3, 20, (5, 8), 4)
    boxes = torch.tensor([box]).expand(3, 4)
    got = pool_label_maps(maps, boxes, absent_share=0.0)
    assert torch.allclose(got, pool_dense(densify(maps), boxes).softmax(1), atol=1e-5)


def test_pool_label_maps_of_an_asymmetric_map_x_is_x_and_y_is_y():
    dense = torch.zeros(1, 3, 2, 4)
    dense[0, 1, :, 3] = 8.0  # class 1 is on the right
    dense[0, 2, 1, :] += 4.0  # class 2 is at the bottom
    top = top_cells(dense, 2)
    maps = gather_maps([encode_maps(top, step=STEP)[0]], grid=(2, 4), top_k=2, step=STEP, num_classes=3)
    right, bottom_left = torch.tensor([[0.75, 0.0, 1.0, 0.5]]), torch.tensor([[0.0, 0.5, 0.25, 1.0]])
    assert pool_label_maps(maps, right).argmax() == 1
    assert pool_label_maps(maps, bottom_left).argmax() == 2


def test_roi_weights_whole_axis_weighs_all_cells_the_same():
    weights = roi_weights(np.zeros(1, np.float32), np.ones(1, np.float32), 7)
    np.testing.assert_allclose(weights, np.full((1, 7), 1 / 7), rtol=1e-6)


def test_pool_logits_with_everything_in_the_top_k_is_the_dense_label_up_to_a_constant():
    dense = torch.randn(2, 6, 3, 4)
    top = top_cells(dense, 6)
    maps = gather_maps(encode_maps(top, step=1e-3), grid=(3, 4), top_k=6, step=1e-3, num_classes=6)
    boxes = torch.tensor([[0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0]])
    assert torch.allclose(
        pool_logits(maps, boxes, absent_share=0.8).softmax(1), pool_dense(dense, boxes).softmax(1), atol=2e-3
    )


def test_pool_logits_counts_an_absent_class_with_its_share_of_the_absent_mean():
    maps = LabelMapBatch(
        classes=torch.tensor([[4, 2]]),
        absent=torch.tensor([[1.0, -2.0]]),
        index=torch.tensor([[[[0], [1]]]]),  # the left cell is led by class 4, the right one by class 2
        logits=torch.tensor([[[[6.0], [8.0]]]]),
        num_classes=5,
    )
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    got = pool_logits(maps, whole, absent_share=0.5)
    expected = torch.tensor([[0.0, 0.0, 0.5 * 8.0 + 0.5 * 0.5 * -2.0, 0.0, 0.5 * 6.0 + 0.5 * 0.5 * 1.0]])
    assert torch.allclose(got, expected)


def test_pool_label_maps_of_a_batch_equals_one_by_one():
    maps = make_maps(5, 30, (7, 7), 5)
    boxes = torch.rand(5, 4)
    whole = pool_label_maps(maps, boxes, temperature=0.7)
    for row in range(5):
        one = LabelMapBatch(
            classes=maps.classes[row : row + 1],
            absent=maps.absent[row : row + 1],
            index=maps.index[row : row + 1],
            logits=maps.logits[row : row + 1],
            num_classes=30,
        )
        assert torch.allclose(pool_label_maps(one, boxes[row : row + 1], temperature=0.7)[0], whole[row], atol=1e-6)


def test_pool_label_maps_of_no_images_is_empty():
    assert pool_label_maps(make_maps(1, 4, (2, 2), 2), torch.rand(1, 4)).shape == (1, 4)
    empty = gather_maps([], grid=(2, 2), top_k=2, step=STEP, num_classes=4)
    assert pool_label_maps(empty, torch.empty(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        pytest.param(torch.zeros(2, 4), "expected (1, 4)", id="another batch"),
        pytest.param(torch.zeros(1, 4, dtype=torch.int64), "expected (1, 4) floats", id="integers"),
        pytest.param(torch.tensor([[0.0, 0.0, float("nan"), 1.0]]), "finite", id="not a number"),
        pytest.param(torch.tensor([[0.0, 0.0, float("inf"), 1.0]]), "finite", id="infinite"),
        pytest.param(torch.tensor([[0.0, 0.0, 224.0, 224.0]]), "pixels", id="pixels"),
    ],
)
def test_pool_logits_of_boxes_that_are_none_is_refused(boxes, said):
    with pytest.raises(BadInput) as caught:
        pool_logits(make_maps(1, 4, (2, 2), 2), boxes, absent_share=0.0)
    assert said in str(caught.value)
