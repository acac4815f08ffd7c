"""Encoding of label maps: what is stored says what the teacher said, within half a step."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.models.label_encoding import STEPS_MAX, EncodedMap, decode_logits, encode_maps, gather_maps, top_cells
from labelmill.models.label_pooling import pool_label_maps
from labelmill.schemas.label_maps import ABSENT_FINENESS

STEP = 1 / 32


def content(encoded):
    return tuple(getattr(encoded, field.name).tobytes() for field in fields(EncodedMap))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 40),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    top_k=st.integers(1, 8),
)
def test_encode_maps_decoded_gives_the_centred_top_k_within_half_a_step(seed, classes, grid, top_k):
    dense = torch.randn(1, classes, *grid, generator=torch.Generator().manual_seed(seed)) * 5
    top = top_cells(dense, top_k)
    k = min(top_k, classes)
    encoded = encode_maps(top, step=STEP)[0]
    maps = gather_maps([encoded], grid=grid, top_k=k, step=STEP, num_classes=classes)
    ids = maps.classes[0][maps.index[0]]
    assert torch.equal(ids, top.ids[0])
    assert (maps.logits[0] - top.logits[0]).abs().max() <= STEP / 2 + 1e-5
    cells = dense[0].permute(1, 2, 0)
    if k < classes:
        outside = cells.clone().scatter_(2, ids, 0.0).sum(-1) / (classes - k)
        assert torch.allclose(top.logits[0].float(), cells.gather(2, ids) - outside[..., None], atol=1e-4)


def test_encode_maps_lists_leaders_first_with_their_cells_and_every_class_once():
    dense = torch.full((1, 6, 1, 4), -9.0)
    dense[0, 5, 0, 0:3] = 9.0
    dense[0, 2, 0, 3] = 9.0
    dense[0, 1, 0, :] = 1.0
    encoded = encode_maps(top_cells(dense, 2), step=STEP)[0]
    assert encoded.classes.tolist() == [5, 2]
    assert encoded.cells.tolist() == [3, 1]
    assert encoded.others.tolist() == [1]
    assert encoded.listed.tolist() == [5, 2, 1]


def test_encode_maps_absent_is_the_mean_centred_logit_where_the_class_is_not_in_the_top_k():
    dense = torch.randn(1, 9, 4, 5, generator=torch.Generator().manual_seed(3)) * 3
    top = top_cells(dense, 2)
    encoded = encode_maps(top, step=1e-3)[0]
    cells = dense[0].permute(1, 2, 0)
    inside = torch.zeros_like(cells, dtype=torch.bool).scatter_(2, top.ids[0], True)
    centred = cells - (cells.masked_fill(inside, 0).sum(-1) / 7)[..., None]
    for place, class_id in enumerate(encoded.listed):
        away = ~inside[..., class_id]
        expected = float(centred[..., class_id][away].mean()) if away.any() else 0.0
        assert encoded.absent[place] * 1e-3 / ABSENT_FINENESS == pytest.approx(expected, abs=1e-4)


def test_encode_maps_rest_gives_back_the_softmax_of_the_cell():
    dense = torch.randn(1, 50, 3, 2, generator=torch.Generator().manual_seed(4)) * 3
    encoded = encode_maps(top_cells(dense, 3), step=1e-3)[0]
    prob_of_top = np.exp(-encoded.rest * 1e-3).reshape(3, 2)
    assert np.allclose(prob_of_top, dense[0].softmax(0).amax(0).numpy(), atol=2e-3)


@pytest.mark.parametrize("constant", [-8.0, -7.0, 0.1, 100.0])
def test_top_cells_of_logits_with_a_constant_added_give_the_same_labels(constant):
    dense = torch.randn(4, 30, 7, 7, generator=torch.Generator().manual_seed(5)) * 4
    boxes = torch.rand(4, 4, generator=torch.Generator().manual_seed(6))
    labels = []
    for logits in (dense, dense + constant):
        top = top_cells(logits, 5)
        maps = gather_maps(encode_maps(top, step=STEP), grid=(7, 7), top_k=5, step=STEP, num_classes=30)
        labels.append(pool_label_maps(maps, boxes))
    assert (labels[0] - labels[1]).abs().max() < 1e-4


def test_top_cells_with_more_classes_kept_than_there_are_keeps_all():
    top = top_cells(torch.randn(2, 3, 4, 4), 5)
    assert top.ids.shape == (2, 4, 4, 3)
    assert torch.allclose(top.logits.mean(-1).float(), torch.zeros(2, 4, 4), atol=1e-6)


def test_top_cells_keeps_ids_above_what_fp16_can_count():
    dense = torch.zeros(1, 21_000, 1, 2)
    dense[0, 20_481, 0, 0] = 5.0
    dense[0, 2_049, 0, 1] = 5.0
    encoded = encode_maps(top_cells(dense, 1), step=STEP)[0]
    assert encoded.classes[encoded.index].tolist() == [20_481, 2_049]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e6, -1e6])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_encode_maps_of_logits_that_cannot_be_stored_is_none_and_its_neighbours_are_as_ever(value, row):
    dense = torch.randn(3, 8, 2, 2, generator=torch.Generator().manual_seed(7))
    whole = encode_maps(top_cells(dense, 3), step=STEP)
    dense[row, 3, 0, 0] = value
    encoded = encode_maps(top_cells(dense, 3), step=STEP)
    assert [m is None for m in encoded] == [place == row for place in range(3)]
    for place in {0, 1, 2} - {row}:
        assert content(encoded[place]) == content(whole[place])


def test_encode_maps_absent_mean_beyond_its_bits_is_clipped_and_not_rejected():
    dense = torch.zeros(1, 6, 1, 3)
    dense[0, 0, 0, 0], dense[0, 1, 0, 1:] = 900.0, 1.0  # class 0 leads one cell and is far below in the others
    dense[0, 0, 0, 1:] = -800.0
    (encoded,) = encode_maps(top_cells(dense, 1), step=STEP)
    absent = dict(zip(encoded.listed.tolist(), encoded.absent.tolist(), strict=True))
    assert absent[0] == -STEPS_MAX
    assert absent[1] > -STEPS_MAX


def test_encode_maps_of_a_batch_are_those_of_each_image_alone():
    dense = torch.randn(5, 40, 4, 6, generator=torch.Generator().manual_seed(8)) * 3
    together = encode_maps(top_cells(dense, 5), step=STEP)
    alone = [encode_maps(top_cells(dense[row : row + 1], 5), step=STEP)[0] for row in range(5)]
    assert [content(m) for m in together] == [content(m) for m in alone]
    assert len({content(m) for m in alone}) == 5


def test_decode_logits_of_one_class_a_cell_has_no_drops():
    assert decode_logits(np.array([3, 4]), np.array([], dtype=np.int32), step=0.5).tolist() == [[1.5], [2.0]]
