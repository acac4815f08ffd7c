"""Read label maps for training: pool the labels of crops by row."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from labelmill.models.label_encoding import EncodedMap, gather_maps
from labelmill.models.label_pooling import check_boxes, pool_label_maps
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.images import Status
from labelmill.schemas.label_maps import MAP_COLUMNS, LabelMapMetadata
from labelmill.tasks.store.store import Store

POOLING_MODES = ("default", "paper")

_INTEGERS = (torch.int64, torch.int32)

PARTS_HELD = 64
"""Parts whose maps stay decoded in memory; a part of 2,048 maps at 15x15x5 takes about 13 MB."""


class LabelMaps:
    """The label maps of a version, by row.

    `mode="default"` counts a class that is absent from a cell's top-k by what the store knows about it, at the fitted
    temperature; `mode="paper"` is the authors' arithmetic: absent classes count as logit 0, no temperature.
    """

    def __init__(self, store: Store, table: str, version: int | None = None) -> None:
        """Open a version, the latest by default; raise NotInStore or BadInput when it is no label maps table."""
        self._table = store.table(table)
        self.version = self._table.version(version)
        if self.version.metadata.get("kind") != "label_maps":
            raise BadInput(f"{table}: expected a table of label maps")
        self.metadata = LabelMapMetadata.model_validate(self.version.metadata)
        self._ends = list(accumulate(part.rows for part in self.version.parts))
        self._parts: OrderedDict[int, _PartMaps] = OrderedDict()
        self._rows_by_id: dict[str, int] | None = None

    def __len__(self) -> int:
        return self.version.rows

    @property
    def num_classes(self) -> int:
        """C, the teacher's class count."""
        return self.metadata.num_classes

    def rows_of(self, image_ids: Sequence[str]) -> Tensor:
        """Return (N,) int64 rows of images; raise NotInStore for an id that the version does not have."""
        if self._rows_by_id is None:
            ids = self._table.read(self.version, ["image_id"])["image_id"].to_pylist()
            self._rows_by_id = {image_id: row for row, image_id in enumerate(ids)}
        try:
            return torch.tensor([self._rows_by_id[i] for i in image_ids], dtype=torch.int64)
        except KeyError as error:
            raise NotInStore(f"{self._table.name} v{self.version.number}: no image {error.args[0]!r}") from error

    def has_map(self, rows: Tensor) -> Tensor:
        """Return (B,) bool: whether each row has a map; a rejected image has none."""
        return torch.tensor([self._map(row) is not None for row in rows.tolist()], dtype=torch.bool)

    def pool(self, rows: Tensor, boxes: Tensor, mode: str = "default", *, temperature: float | None = None) -> Tensor:
        """Return the labels of crops: (B, C) float32 probabilities.

        rows: (B,) int64 in 0…n−1; boxes: (B, 4) float, x1 y1 x2 y2 in [0, 1] of the image. `temperature` takes the
        place of the default mode's fitted one, or of the paper's 1. Raises BadInput for an unknown mode, a
        temperature that is not positive, boxes that are none, or a row whose image was rejected; NotInStore for a row
        out of range.
        """
        if mode not in POOLING_MODES:
            raise BadInput(f"mode: expected one of {', '.join(POOLING_MODES)}, got {mode!r}")
        if temperature is not None and not 0 < temperature < math.inf:
            raise BadInput(f"temperature: expected a positive number, got {temperature}")
        rows, boxes = torch.as_tensor(rows), torch.as_tensor(boxes)  # numpy's arrays are welcome
        if rows.ndim != 1 or rows.dtype not in _INTEGERS:
            raise BadInput(f"rows: expected (B,) int64, got {tuple(rows.shape)} {rows.dtype}")
        check_boxes(boxes, len(rows))
        meta = self.metadata
        maps = [self._wanted_map(row) for row in rows.tolist()]
        batch = gather_maps(maps, grid=meta.grid, top_k=meta.top_k, step=meta.logit_step, num_classes=meta.num_classes)
        if mode == "paper":
            return pool_label_maps(batch, boxes, absent_share=0.0, temperature=temperature or 1.0)
        return pool_label_maps(
            batch, boxes, absent_share=meta.absent_share, temperature=temperature or meta.temperature
        )

    def _wanted_map(self, row: int) -> EncodedMap:
        found = self._map(row)
        if found is None:
            raise BadInput(f"row {row}: its image was rejected and has no map; leave out rows whose status is not done")
        return found

    def _map(self, row: int) -> EncodedMap | None:
        if not 0 <= row < len(self):
            raise NotInStore(f"row {row}: expected 0 to {len(self) - 1}")
        place = bisect_right(self._ends, row)
        return self._part(place).map(row - (self._ends[place - 1] if place else 0))

    def _part(self, place: int) -> _PartMaps:
        part = self._parts.pop(place, None) or _PartMaps(
            self._table.read_part(self.version.parts[place], ["status", *MAP_COLUMNS])
        )
        self._parts[place] = part
        if len(self._parts) > PARTS_HELD:
            self._parts.popitem(last=False)
        return part


class _PartMaps:
    """A part's maps as flat arrays, one for each column, with the start of every row."""

    def __init__(self, rows: pa.Table) -> None:
        self._done = [status == Status.DONE for status in rows["status"].to_pylist()]
        columns = {name: rows[name].combine_chunks() for name in MAP_COLUMNS}
        self._starts = {name: np.asarray(column.offsets) for name, column in columns.items()}
        self._values: dict[str, npt.NDArray[np.integer]] = {
            name: np.asarray(column.values) for name, column in columns.items()
        }

    def map(self, row: int) -> EncodedMap | None:
        if not self._done[row]:
            return None
        return EncodedMap(**{name: self._values[name][s[row] : s[row + 1]] for name, s in self._starts.items()})
