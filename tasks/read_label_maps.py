"""Read label maps for training: pool the labels of crops by row."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
from torch import Tensor

from labelmill.models.label_pooling import LabelMapBatch, check_boxes, pool_label_maps
from labelmill.models.stored_maps import RecordTable, batch_maps, read_records
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.images import Status
from labelmill.schemas.label_maps import LabelMapMetadata
from labelmill.tasks.label_cache import LabelCache
from labelmill.tasks.match_files import match_files
from labelmill.tasks.store.store import Store

POOLING_MODES = ("default", "paper")

_INTEGERS = (torch.int64, torch.int32)

_MALLOC_HINT_BYTES = 31 << 20
"""glibc returns freed memory beyond a limit to the system at once, and raises the limit when a larger block is freed
(mallopt(3), M_MMAP_THRESHOLD, at most 32 MiB). Without this, page faults took half of the time of `pool`."""


class LabelMaps:
    """The label maps of a version, by row.

    `mode="default"` counts a class that is absent from a cell's top-k by what the store knows about it, at the fitted
    temperature; `mode="paper"` is the authors' arithmetic: absent classes count as logit 0, no temperature.

    Maps are read from a cache of memory-mapped files (docs/training.md), which the first read of a part builds. Any
    process or thread of a trainer may use it; a pickle of it is small and opens the files anew.
    """

    def __init__(self, store: Store, table: str, version: int | None = None) -> None:
        """Open a version, the latest by default; raise NotInStore or BadInput when it is no label maps table."""
        self._table = store.table(table)
        self.version = self._table.version(version)
        self.metadata = LabelMapMetadata.read(table, self.version.metadata)
        self._forget()

    def _forget(self) -> None:
        """Drop all that can be read again."""
        height, width = self.metadata.grid
        self._cache = LabelCache(self._table, entries=height * width * self.metadata.top_k)
        sizes = np.array([part.rows for part in self.version.parts])
        self._ends = sizes.cumsum()
        self._starts = self._ends - sizes
        self._parts: dict[int, RecordTable] = {}
        self._rows_by_id: dict[str, int] | None = None
        self._done: npt.NDArray[np.bool_] | None = None
        np.empty(_MALLOC_HINT_BYTES, np.uint8)  # never touched, so it costs nothing; freed here

    def __getstate__(self) -> dict[str, Any]:
        return {"_table": self._table, "version": self.version, "metadata": self.metadata}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return self.version.rows

    @property
    def num_classes(self) -> int:
        """C, the teacher's class count."""
        return self.metadata.num_classes

    def rows_of(self, image_ids: Sequence[str]) -> Tensor:
        """Return (N,) int64 rows of images; raise NotInStore for an id that the version does not have."""
        rows = self._rows_of_all()
        try:
            return torch.tensor([rows[i] for i in image_ids], dtype=torch.int64)
        except KeyError as error:
            raise NotInStore(f"{self._table.name} v{self.version.number}: no image {error.args[0]!r}") from error

    def rows_of_files(self, files: Sequence[str | os.PathLike[str]], *, id_prefix: str = "") -> Tensor:
        """Return (N,) int64 rows of the images in files, −1 for a file that the version does not have.

        An image's id is its path below the folder that was ingested, so a file is the image whose id its path ends
        with, wherever the folder is mounted. `id_prefix` is what the ids got at ingest before that path.
        """
        return torch.tensor(match_files(files, self._rows_of_all(), id_prefix=id_prefix), dtype=torch.int64)

    def _rows_of_all(self) -> dict[str, int]:
        if self._rows_by_id is None:
            ids = self._table.read(self.version, ["image_id"])["image_id"].to_pylist()
            self._rows_by_id = {image_id: row for row, image_id in enumerate(ids)}
        return self._rows_by_id

    def has_map(self, rows: Tensor) -> Tensor:
        """Return (B,) bool: whether each row has a map; a rejected image has none."""
        places = self._check_rows(torch.as_tensor(rows))
        if self._done is None:
            status = self._table.read(self.version, ["status"])["status"]
            self._done = np.asarray(pc.equal(status, Status.DONE.value)).astype(np.bool_)
        return torch.from_numpy(self._done[places])

    def read(self, rows: Tensor) -> LabelMapBatch:
        """Return the maps of `rows` (B,) int64, sparse, on the CPU; raise as `pool` does."""
        return self._read(self._check_rows(torch.as_tensor(rows)))

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
        places = self._check_rows(rows)
        check_boxes(boxes, len(places))
        batch = self._read(places)
        if mode == "paper":
            return pool_label_maps(batch, boxes, absent_share=0.0, temperature=temperature or 1.0)
        meta = self.metadata
        return pool_label_maps(
            batch, boxes, absent_share=meta.absent_share, temperature=temperature or meta.temperature
        )

    def prepare(self) -> None:
        """Open all parts now, building what the cache lacks; else the first batches that need a part do."""
        places = range(len(self.version.parts))
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda place: self._open([place]), places))

    def _open(self, places: Iterable[int]) -> None:
        for place in places:
            if place not in self._parts:
                self._parts[place] = RecordTable(self._cache.open(self.version.parts[place]))

    def _check_rows(self, rows: Tensor) -> npt.NDArray[np.intp]:
        if rows.ndim != 1 or rows.dtype not in _INTEGERS:
            raise BadInput(f"rows: expected (B,) int64, got {tuple(rows.shape)} {rows.dtype}")
        places = rows.cpu().numpy().astype(np.intp)
        outside = (places < 0) | (places >= len(self))
        if outside.any():
            raise NotInStore(f"row {places[outside][0]}: expected 0 to {len(self) - 1}")
        return places

    def _read(self, rows: npt.NDArray[np.intp]) -> LabelMapBatch:
        """Return the maps of `rows`; raise BadInput for one that has none."""
        part_of = np.searchsorted(self._ends, rows, side="right")
        row_of = rows - self._starts[part_of]
        self._open(np.unique(part_of).tolist())
        groups = read_records(self._parts, part_of, row_of)
        for group in groups:
            missing = group.records["listed"][:, 0] == 0
            if missing.any():
                row = rows[group.places[missing].min()]
                raise BadInput(
                    f"row {row}: its image was rejected and has no map; leave out rows whose status is not done"
                )
        meta = self.metadata
        return batch_maps(groups, grid=meta.grid, top_k=meta.top_k, step=meta.logit_step, num_classes=meta.num_classes)
