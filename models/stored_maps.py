"""Label maps as fixed-size records, side by side: what random reads of a training batch need.

A record holds one image's map, decoded as far as it stays small: logits as steps, not as drops, and lists filled up to
one length. A read of a map is a copy of adjacent bytes, and that of a batch has no Python loop over its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from labelmill.models.label_pooling import LabelMapBatch
from labelmill.schemas.label_maps import ABSENT_FINENESS

Ints = npt.NDArray[np.integer[Any]]
Records = npt.NDArray[np.void]

LIST_UNIT = 32
"""Lists of classes are filled up to a multiple of this, so that few types of record meet in a batch."""

RECORDS_REVISION = 1
"""Names the type of the records below; arrays of another revision are never taken for these."""


def record_type(entries: int, listed: int) -> np.dtype[np.void]:
    """Return the type of a record: a map of `entries` = H*W*k places in a list of up to `listed` classes.

    listed: the number of classes, 0 where there is no map; classes, absent: those of the map as `EncodedMap` has them,
    then zeros; steps: (entries,) centred logits in steps; index: (entries,) places in `classes`, by (y, x, rank).
    """
    room = max(-(-listed // LIST_UNIT), 1) * LIST_UNIT
    return np.dtype(
        [
            ("listed", "<i4", (1,)),
            ("classes", "<i4", (room,)),
            ("steps", "<i2", (entries,)),
            ("absent", "<i2", (room,)),
            ("index", "u1" if room <= 256 else "<u2", (entries,)),
        ],
        align=True,
    )


def holds_maps(kind: np.dtype[Any], entries: int) -> bool:
    """Tell whether `kind` is a type of record for maps of `entries` places."""
    room = kind["classes"].shape if kind.names and "classes" in kind.names else ()
    return bool(room) and kind == record_type(entries, room[0])


def pack_maps(done: npt.NDArray[np.bool_], columns: Mapping[str, Ints], listed: Ints, *, entries: int) -> Records:
    """Return (rows,) records of maps that lie one after the other.

    done: (rows,) whether each row has a map; listed: (M,) classes of each of the M maps; columns: `classes` and
    `absent` of all maps in one stretch (sum of `listed`), `index` (M*entries,), `top` (M*H*W,) and
    `drops` (M*H*W*(k-1),), as `EncodedMap` has them.
    """
    records = np.zeros(len(done), record_type(entries, int(listed.max(initial=0))))
    records["listed"][done, 0] = listed
    inside = np.arange(records["classes"].shape[1]) < records["listed"]
    records["classes"][inside] = columns["classes"]
    records["absent"][inside] = columns["absent"]
    records["index"][done] = columns["index"].reshape(-1, entries)
    records["steps"][done] = cumulate_drops(columns["top"], columns["drops"]).reshape(-1, entries)
    return records


def cumulate_drops(top: Ints, drops: Ints) -> Ints:
    """Return (N, k) int32 logits of N cells in steps, from their `top` (N,) and `drops` (N*(k-1),)."""
    below = drops.reshape(len(top), len(drops) // max(len(top), 1)).astype(np.int32)
    return np.hstack([top[:, None].astype(np.int32), -below]).cumsum(axis=1, dtype=np.int32)


class RecordTable:
    """A part's records, to be read one by one.

    As rows of bytes `raw` (rows, itemsize): numpy copies such a row at once, but a structured one field by field.
    """

    __slots__ = ("kind", "raw", "size")

    def __init__(self, records: Records) -> None:
        self.kind = records.dtype
        self.size = self.kind.itemsize  # tells the types of one table's records apart
        self.raw: npt.NDArray[np.uint8] = records.view(np.uint8).reshape(len(records), self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordGroup:
    """Records of one type, `records` (n,), and `places` (n,) ascending, where in the batch each belongs."""

    places: npt.NDArray[np.intp]
    records: Records


def read_records(
    tables: Mapping[int, RecordTable], table_of: npt.NDArray[np.intp], row_of: npt.NDArray[np.intp]
) -> list[RecordGroup]:
    """Copy a batch's records, grouped by their type: one group, or few.

    table_of, row_of: (B,) the key of each image's table and its row there.
    """
    # Row by row: a random batch has hardly two rows of a part, and sorting it by part for numpy's `take` cost more
    # (256 of 650 parts: 0.69 ms so, 1.0 ms sorted).
    found: dict[int, tuple[np.dtype[np.void], list[int], list[npt.NDArray[np.uint8]]]] = {}
    for place, (key, row) in enumerate(zip(table_of.tolist(), row_of.tolist(), strict=True)):
        table = tables[key]
        _, places, copies = found.get(table.size) or found.setdefault(table.size, (table.kind, [], []))
        places.append(place)
        copies.append(table.raw[row])
    return [
        RecordGroup(places=np.array(places), records=np.array(copies).view(kind).ravel())
        for kind, places, copies in found.values()
    ]


def batch_maps(
    groups: Sequence[RecordGroup], *, grid: tuple[int, int], top_k: int, step: float, num_classes: int
) -> LabelMapBatch:
    """Put the records of a batch, all with a map, together for pooling; the shapes are those of `LabelMapBatch`."""
    listed = _together(groups, "listed", 1)
    longest = int(listed.max(initial=0))
    inside = np.arange(longest) < listed
    classes = np.where(inside, _together(groups, "classes", longest), num_classes).astype(np.int64)
    absent = np.multiply(_together(groups, "absent", longest), np.float32(step / ABSENT_FINENESS), dtype=np.float32)
    entries = grid[0] * grid[1] * top_k
    index = _together(groups, "index", entries)
    logits = np.multiply(_together(groups, "steps", entries), np.float32(step), dtype=np.float32)
    shape = (len(listed), *grid, top_k)
    return LabelMapBatch(
        classes=torch.from_numpy(classes),
        absent=torch.from_numpy(absent),
        index=torch.from_numpy((index if index.dtype == np.uint8 else index.astype(np.int32)).reshape(shape)),
        logits=torch.from_numpy(logits.reshape(shape)),
        num_classes=num_classes,
    )


def _together(groups: Sequence[RecordGroup], name: str, width: int) -> Ints:
    """Return a field of all records (B, width), in the batch's order; a view where all are of one type."""
    if len(groups) == 1:
        alone: Ints = groups[0].records[name][:, :width]
        return alone
    whole = np.zeros((sum(len(group.places) for group in groups), width), np.int32)
    for group in groups:
        field = group.records[name][:, :width]
        whole[group.places, : field.shape[1]] = field
    return whole
