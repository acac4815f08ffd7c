"""Records: a batch read from them is the batch that gather_maps makes of the same maps."""

import dataclasses

import numpy as np
import pytest
import torch

from labelmill.models.label_encoding import decode_logits, encode_maps, gather_maps, top_cells
from labelmill.models.label_pooling import pool_label_maps
from labelmill.models.stored_maps import (
    RecordTable,
    batch_maps,
    cumulate_drops,
    holds_maps,
    pack_maps,
    read_records,
    record_type,
)

STEP = 1 / 32


def make_maps(count, classes, grid, top_k, seed=0):
    dense = torch.randn(count, classes, *grid, generator=torch.Generator().manual_seed(seed)) * 4
    return encode_maps(top_cells(dense, top_k), step=STEP)


def pack(maps, done, entries):
    names = ("classes", "absent", "index", "top", "drops")
    columns = {n: np.concatenate([getattr(m, n) for m in maps]) if maps else np.zeros(0, np.int32) for n in names}
    columns["classes"] = np.concatenate([m.listed for m in maps]) if maps else columns["classes"]
    listed = np.array([len(m.listed) for m in maps], np.int64)
    return pack_maps(np.array(done), columns, listed, entries=entries)


def assert_same_batch(got, expected, boxes):
    count = expected.classes.shape[1]
    assert torch.equal(got.classes[:, :count], expected.classes)
    assert (got.classes[:, count:] == expected.num_classes).all()
    assert torch.equal(got.absent[:, :count], expected.absent)
    assert torch.equal(got.index.long(), expected.index)
    assert torch.equal(got.logits, expected.logits)
    assert torch.equal(pool_label_maps(got, boxes), pool_label_maps(expected, boxes))


@pytest.mark.parametrize(
    ("classes", "grid", "top_k"),
    [
        pytest.param(11, (2, 3), 1, id="one rank"),
        pytest.param(30, (7, 5), 5, id="few classes"),
        pytest.param(1000, (15, 15), 5, id="more classes than a byte counts"),
    ],
)
def test_batch_maps_of_packed_maps_equals_gather_maps(classes, grid, top_k):
    maps = make_maps(6, classes, grid, top_k)
    shape = {"grid": grid, "top_k": top_k, "step": STEP, "num_classes": classes}
    table = RecordTable(pack(maps, [True, True, False, True, True, True, True], grid[0] * grid[1] * top_k))
    rows = np.array([6, 0, 3, 3])
    groups = read_records({4: table}, np.full(4, 4), rows)
    expected = gather_maps([maps[5], maps[0], maps[2], maps[2]], **shape)
    assert_same_batch(batch_maps(groups, **shape), expected, torch.rand(4, 4).sort(1).values)


def test_batch_maps_of_several_types_of_record_keeps_the_order():
    """A part whose maps list few classes, and one whose maps list more than 256."""
    few, many = make_maps(3, 1000, (9, 9), 1, seed=1), make_maps(3, 1000, (9, 9), 5, seed=2)
    few = [dataclasses.replace(m, index=np.repeat(m.index, 5), drops=np.repeat(m.drops, 0)) for m in few]
    few = [dataclasses.replace(m, drops=np.arange(81 * 4, dtype=np.int32) % 9) for m in few]
    shape = {"grid": (9, 9), "top_k": 5, "step": STEP, "num_classes": 1000}
    tables = {0: RecordTable(pack(few, [True] * 3, 405)), 7: RecordTable(pack(many, [True] * 3, 405))}
    assert tables[0].kind["index"].base != tables[7].kind["index"].base
    groups = read_records(tables, np.array([7, 0, 0, 7]), np.array([2, 1, 0, 0]))
    expected = gather_maps([many[2], few[1], few[0], many[0]], **shape)
    assert_same_batch(batch_maps(groups, **shape), expected, torch.rand(4, 4).sort(1).values)


def test_batch_maps_of_no_images_is_empty():
    shape = {"grid": (2, 2), "top_k": 2, "step": STEP, "num_classes": 4}
    got = batch_maps(read_records({}, np.zeros(0, np.intp), np.zeros(0, np.intp)), **shape)
    assert pool_label_maps(got, torch.empty(0, 4)).shape == (0, 4)


def test_pack_maps_row_without_a_map_lists_nothing():
    records = pack(make_maps(1, 9, (2, 2), 2), [False, True, False], 8)
    assert (records["listed"][:, 0] > 0).tolist() == [False, True, False]
    assert (pack([], [False, False], 8)["listed"] == 0).all()


def test_cumulate_drops_equals_decoded_logits():
    random = np.random.default_rng(0)
    top, drops = random.integers(-3000, 3000, 50).astype(np.int16), random.integers(0, 9000, 200).astype(np.uint16)
    assert np.array_equal(cumulate_drops(top, drops) * np.float32(STEP), decode_logits(top, drops, step=STEP))


def test_holds_maps_knows_other_types():
    assert holds_maps(record_type(1125, 45), 1125)
    assert holds_maps(record_type(1125, 0), 1125)
    assert not holds_maps(record_type(1125, 45), 245)
    assert not holds_maps(np.dtype("<f4"), 1125)
    assert not holds_maps(np.dtype([("classes", "<i4", (64,)), ("index", "u1", (1125,))]), 1125)
