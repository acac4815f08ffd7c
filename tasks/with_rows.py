"""A dataset of image files whose items carry their row in the label maps."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from labelmill.schemas.errors import BadInput
from labelmill.tasks.read_label_maps import LabelMaps

logger = logging.getLogger(__name__)


class WithRows(Dataset[tuple[Any, ...]]):
    """The items of a dataset that have a label map, each with its row behind: `(image, target, row)` of an ImageFolder.

    rows: (n,) int64, the rows of the items in order; left_out: how many items have no map, because their image was
    rejected or is not in the table. It holds no maps: workers of a DataLoader get little to copy.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - whatever has items and files
        maps: LabelMaps,
        *,
        files: Sequence[str | os.PathLike[str]] | None = None,
        id_prefix: str = "",
    ) -> None:
        """Find every item's row by its file; raise BadInput when files cannot be told or none has a map.

        dataset: with `samples` or `imgs` as torchvision's folders have them, a list of (path, class), unless `files`
        names the file of every item. `id_prefix` is the one that was given to the ingest.
        """
        paths = _files_of(dataset) if files is None else list(files)
        if len(paths) != len(dataset):
            raise BadInput(f"files: expected one for each of {len(dataset)} items, got {len(paths)}")
        rows = maps.rows_of_files(paths, id_prefix=id_prefix)
        known = rows >= 0
        mapped = known.clone()
        mapped[known] = maps.has_map(rows[known])
        self.dataset = dataset
        self.rows = rows[mapped].numpy()
        self._items = np.flatnonzero(mapped.numpy())
        self.left_out = len(paths) - len(self._items)
        where = f"{maps.version.table} v{maps.version.number}"
        rejected = int(known.sum()) - len(self._items)
        if not len(self._items):
            example = f", for example {os.fspath(paths[0])}" if paths else ""
            raise BadInput(
                f"files: none of {len(paths)} has a map in {where}{example}: {len(paths) - rejected} have no image "
                f"whose id their path ends with, {rejected} were rejected"
            )
        if self.left_out:
            logger.info(
                "%d of %d items are left out: %d are not in %s, %d were rejected",
                self.left_out, len(paths), self.left_out - rejected, where, rejected,
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        item = self.dataset[int(self._items[place])]
        row = int(self.rows[place])
        return (*item, row) if isinstance(item, tuple) else (item, row)


def _files_of(dataset: Any) -> list[str]:  # noqa: ANN401 - whatever has items and files
    samples = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
    if samples is None:
        raise BadInput(f"dataset: expected one with samples or imgs, got {type(dataset).__name__}; name its files")
    return [path for path, *_ in samples]
