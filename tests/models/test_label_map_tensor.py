"""The tensor of ReLabel's authors: what goes in comes out, within half a step; what is no map of logits is refused."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from labelmill.models.label_encoding import EncodedMap, gather_maps
from labelmill.models.label_map_tensor import (
    BadMap,
    TensorMeaning,
    check_tensor,
    encode_tensor,
    shape_of,
    tensors_of,
)
from labelmill.models.label_pooling import pool_label_maps

STEP = 1 / 32

PAPER_BOUND = math.tanh(STEP / 4)
"""Total variation of a softmax whose logits each move by at most half a step: see docs/import-export.md."""


def meaning_of(shape, classes, **changes):
    plain = TensorMeaning(shape=shape, num_classes=classes, transposed=False, scores_are_logits=False, step=STEP)
    return replace(plain, **changes)


def draw_tensor(seed, shape, classes, *, spread=4.0):
    """A tensor [2, k, H, W] with distinct ids in each cell and scores in no order."""
    random = np.random.default_rng(seed)
    top_k, height, width = shape
    ids = random.random((height, width, classes)).argsort(-1)[..., :top_k].transpose(2, 0, 1)
    scores = random.normal(0, spread, shape) - 1.0
    return torch.from_numpy(np.stack([scores, ids])).float()


def densify(tensor, classes):
    """The authors' reading: scores scattered at their ids into (C, H, W) of zeros."""
    scores, ids = tensor[0], tensor[1].long()
    return torch.zeros(classes, *scores.shape[1:]).scatter_(0, ids, scores)


def export(encoded, shape, classes, **options):
    top_k, *grid = shape
    return tensors_of([encoded], grid=tuple(grid), top_k=top_k, step=STEP, num_classes=classes, **options)[0]


def same_map(one, other):
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(EncodedMap))


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 7))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), shape=shapes, more=st.integers(0, 50), transposed=st.booleans())
def test_encode_tensor_exported_is_the_tensor_within_half_a_step_and_again_the_same_map(seed, shape, more, transposed):
    classes = shape[0] + more
    tensor = draw_tensor(seed, shape, classes)
    given_as = tensor.transpose(2, 3) if transposed else tensor
    meaning = meaning_of(shape, classes, transposed=transposed, scores_are_logits=True)
    encoded = encode_tensor(given_as, meaning)
    exported = export(encoded, shape, classes, transposed=transposed)
    assert exported.dtype == torch.float32
    assert exported.shape == given_as.shape
    assert (densify(exported, classes) - densify(given_as, classes)).abs().max() <= STEP / 2 + 1e-6
    order = given_as[0].argsort(dim=0, descending=True, stable=True)
    assert torch.equal(exported[1], given_as[1].gather(0, order))  # exact ids, by descending logit
    assert same_map(encode_tensor(exported, meaning), encoded)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), shape=shapes, more=st.integers(1, 50))
def test_encode_tensor_pooled_as_in_the_paper_is_the_authors_arithmetic_within_the_step(seed, shape, more):
    """Densify with zeros, RoIAlign, softmax: on the tensor as it was given."""
    classes = shape[0] + more
    tensor = draw_tensor(seed, shape, classes)
    corners = torch.rand(8, 4, generator=torch.Generator().manual_seed(seed))
    boxes = torch.cat([corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])], 1)
    top_k, height, width = shape
    places = boxes * torch.tensor([width, height, width, height]) - 0.5
    dense = densify(tensor, classes)[None]
    rois = torch.cat([torch.zeros(8, 1), places], 1)
    expected = roi_align(dense, rois, output_size=1, sampling_ratio=-1, aligned=False).flatten(1).softmax(1)

    encoded = encode_tensor(tensor, meaning_of(shape, classes, scores_are_logits=True))
    maps = gather_maps([encoded] * 8, grid=(height, width), top_k=top_k, step=STEP, num_classes=classes)
    got = pool_label_maps(maps, boxes, absent_share=0.0)

    assert (got - expected).abs().sum(1).max() / 2 <= PAPER_BOUND + 1e-5
    # With the logits exact the bound is that of float arithmetic: nothing but the step lies between the two.
    exact = tensor.clone()
    exact[0] = (tensor[0] / STEP).round() * STEP
    dense = densify(exact, classes)[None]
    rounded = roi_align(dense, rois, output_size=1, sampling_ratio=-1, aligned=False).flatten(1).softmax(1)
    assert (got - rounded).abs().max() < 1e-5


def test_encode_tensor_says_nothing_about_what_is_outside_the_top_k():
    encoded = encode_tensor(draw_tensor(0, (3, 2, 4), 9), meaning_of((3, 2, 4), 9))
    assert encoded.absent.tolist() == [0] * len(encoded.listed)
    assert encoded.rest.tolist() == []
    assert encoded.cells.sum() == 8


def test_encode_tensor_transposed_has_the_files_first_axis_across():
    """One sure class in a single cell: at y = 0, x = 3 of the map, so at [3, 0] of a transposed file."""
    tensor = draw_tensor(1, (2, 4, 2), 9, spread=0.5)
    tensor[:, :, 3, 0] = torch.tensor([[30.0, -5.0], [7.0, 0.0]])
    encoded = encode_tensor(tensor, meaning_of((2, 2, 4), 9, transposed=True))
    tops = encoded.top.reshape(2, 4)
    assert np.unravel_index(tops.argmax(), tops.shape) == (0, 3)
    assert encoded.classes[encoded.index.reshape(2, 4, 2)[0, 3, 0]] == 7


@pytest.mark.parametrize(("transposed", "expected"), [(False, (5, 2, 3)), (True, (5, 3, 2))])
def test_shape_of_is_rows_then_columns(transposed, expected):
    assert shape_of(torch.zeros(2, 5, 2, 3), transposed=transposed) == expected


def test_tensors_of_several_maps_keep_their_order_and_save_alone():
    shape, classes = (3, 2, 4), 12
    tensors = [draw_tensor(seed, shape, classes) for seed in range(5)]
    encoded = [encode_tensor(t, meaning_of(shape, classes)) for t in tensors]
    exported = tensors_of(encoded, grid=(2, 4), top_k=3, step=STEP, num_classes=classes)
    for tensor, given_as in zip(exported, tensors, strict=True):
        assert (densify(tensor, classes) - densify(given_as, classes)).abs().max() <= STEP / 2 + 1e-6
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4  # not the whole batch


def test_encode_tensor_ids_that_half_precision_cannot_count_stay_exact():
    tensor = torch.tensor([[[[9.0]], [[8.0]]], [[[20_841.0]], [[2_049.0]]]])
    exported = export(encode_tensor(tensor, meaning_of((2, 1, 1), 21_841)), (2, 1, 1), 21_841)
    assert exported[1].flatten().tolist() == [20_841, 2_049]


def spoiled(index, value):
    tensor = draw_tensor(3, (3, 2, 4), 9)
    tensor[index] = value
    return tensor


@pytest.mark.parametrize(
    ("tensor", "reason", "said"),
    [
        pytest.param(spoiled((0, 1, 1, 3), math.nan), "not_finite", "score", id="score nan"),
        pytest.param(spoiled((0, 0, 0, 0), -math.inf), "not_finite", "score", id="score inf"),
        pytest.param(spoiled((1, 2, 1, 0), math.nan), "not_finite", "class id", id="id nan"),
        pytest.param(spoiled((0, 2, 0, 1), 1025.0), "score_out_of_range", "1023.97, got 1025", id="score too large"),
        pytest.param(spoiled((0, 2, 0, 1), -1e30), "score_out_of_range", "1e.30", id="score far too low"),
        pytest.param(spoiled((1, 0, 1, 2), 2.5), "id_not_whole", "2.5", id="id not whole"),
        pytest.param(spoiled((1, 0, 1, 2), 9.0), "id_out_of_range", "0 to 8, got 9", id="id too large"),
        pytest.param(spoiled((1, 0, 1, 2), -1.0), "id_out_of_range", "0 to 8, got -1", id="id negative"),
        pytest.param(spoiled((1, slice(0, 2), 1, 2), 5.0), "id_repeated", "twice", id="id repeated in a cell"),
        pytest.param(draw_tensor(3, (3, 4, 2), 9), "wrong_shape", r"\(3, 2, 4\)", id="another grid"),
        pytest.param(draw_tensor(3, (2, 2, 4), 9), "wrong_shape", r"got \(2, 2, 4\)", id="another k"),
    ],
)
def test_encode_tensor_of_what_is_no_map_says_why(tensor, reason, said):
    with pytest.raises(BadMap, match=said) as caught:
        encode_tensor(tensor, meaning_of((3, 2, 4), 9))
    assert caught.value.reason == reason


def test_encode_tensor_an_id_may_repeat_in_different_cells():
    tensor = draw_tensor(3, (3, 2, 4), 9)
    tensor[1] = torch.tensor([8.0, 0.0, 4.0])[:, None, None]
    assert encode_tensor(tensor, meaning_of((3, 2, 4), 9)).listed.size == 3


def probabilities(seed=0):
    tensor = draw_tensor(seed, (3, 2, 4), 9)
    tensor[0] = densify(tensor, 9).softmax(0).gather(0, tensor[1].long())
    return tensor


def test_encode_tensor_of_probabilities_is_refused_unless_they_are_said_to_be_logits():
    with pytest.raises(BadMap, match="softmax of probabilities") as caught:
        encode_tensor(probabilities(), meaning_of((3, 2, 4), 9))
    assert caught.value.reason == "probabilities"
    encoded = encode_tensor(probabilities(), meaning_of((3, 2, 4), 9, scores_are_logits=True))
    exported = export(encoded, (3, 2, 4), 9)
    assert (densify(exported, 9) - densify(probabilities(), 9)).abs().max() <= STEP / 2 + 1e-6


@pytest.mark.parametrize(
    ("index", "value"),
    [
        pytest.param((0, 0, 1, 1), 1.2, id="one above 1"),
        pytest.param((0, 0, 1, 1), -0.01, id="one below 0"),
        pytest.param((0, slice(None), 1, 1), 0.4, id="a cell that sums to more than 1"),
    ],
)
def test_encode_tensor_small_logits_that_are_no_probabilities_are_taken(index, value):
    tensor = probabilities()
    tensor[index] = value
    assert encode_tensor(tensor, meaning_of((3, 2, 4), 9)).top.size == 8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param({"scores": 1}, "not_a_label_map", id="a dictionary"),
        pytest.param(torch.zeros(2, 5, 3, 3, dtype=torch.float16), "not_a_label_map", id="half precision"),
        pytest.param(torch.zeros(2, 5, 3, 3, dtype=torch.int64), "not_a_label_map", id="integers"),
        pytest.param(torch.zeros(2, 5, 3, 3, device="meta"), "not_a_label_map", id="no values"),
        pytest.param(torch.zeros(5, 3, 3), "wrong_shape", id="three axes"),
        pytest.param(torch.zeros(1, 2, 5, 3, 3), "wrong_shape", id="a batch of one"),
        pytest.param(torch.zeros(3, 5, 3, 3), "wrong_shape", id="three planes"),
        pytest.param(torch.zeros(2, 0, 3, 3), "wrong_shape", id="no ranks"),
        pytest.param(torch.zeros(1).expand(2, 5, 10**5, 10**5), "wrong_shape", id="far too large"),
    ],
)
def test_check_tensor_of_anything_else_says_why(content, reason):
    with pytest.raises(BadMap) as caught:
        check_tensor(content)
    assert caught.value.reason == reason


def test_check_tensor_of_a_parameter_has_no_gradient():
    tensor = check_tensor(torch.nn.Parameter(draw_tensor(0, (3, 2, 4), 9)))
    assert encode_tensor(tensor, meaning_of((3, 2, 4), 9)).top.size == 8
