"""The pseudo labels that a manifest chose, as a student learns from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.tasks.store import Table
from labelmill.tasks.train.examples import Examples, Ids


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestLabels:
    """Rows of a version of a manifest whose images are chosen; `missing` lists those that were not found, by `choose`.

    class_ids and probabilities: lists by row, of the labels; copies: (N,) int64, how often an epoch has each image.
    """

    name: str
    version: int
    digest: str
    classes: ClassList
    image_ids: list[str]
    class_ids: pa.ChunkedArray
    probabilities: pa.ChunkedArray
    copies: Ids
    missing: list[str] = field(default_factory=list)

    def choose(self, pool: Examples) -> Examples:
        """Return the chosen images of a pool, once each, in the manifest's order.

        Raises BadInput when not one of them is in it.
        """
        places = {name: place for place, name in enumerate(pool.ids())}
        found = [places.get(name) for name in self.image_ids]
        self.missing.extend(name for name, place in zip(self.image_ids, found, strict=True) if place is None)
        kept = [place for place in found if place is not None]
        if not kept:
            raise BadInput(f"manifest: none of its {len(self.image_ids)} images is among those of {pool.table}")
        return pool.take(np.array(kept, np.int64))

    def copies_of(self, chosen: Examples) -> Ids:
        """Return how often an epoch has each of the images that `choose` gave, (N,) int64."""
        copies: Ids = self.copies[self._rows_of(chosen)]
        return copies

    def _rows_of(self, chosen: Examples) -> Ids:
        rows = {name: row for row, name in enumerate(self.image_ids)}
        return np.array([rows[name] for name in chosen.ids()], np.int64)

    def labels_for(self, chosen: Examples) -> SparseLabels:
        """Return the labels of images that `choose` gave."""
        order = pa.array(self._rows_of(chosen))
        class_ids, probabilities = (column.take(order) for column in (self.class_ids, self.probabilities))
        counts = pc.list_value_length(class_ids).to_numpy()
        return SparseLabels(
            starts=torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])),
            class_ids=torch.from_numpy(np.array(pc.list_flatten(class_ids).to_numpy(), np.int64)),
            probabilities=torch.from_numpy(np.array(pc.list_flatten(probabilities).to_numpy(), np.float32)),
            num_classes=len(self.classes),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseLabels:
    """Labels of few classes each: those of image i are the entries from starts[i] to starts[i + 1]."""

    starts: Tensor
    class_ids: Tensor
    probabilities: Tensor
    num_classes: int

    def of(self, places: Ids) -> Tensor:
        """Return (B, C) float32 probabilities of images by place."""
        labels = torch.zeros(len(places), self.num_classes)
        for row, place in enumerate(places):
            start, stop = int(self.starts[place]), int(self.starts[place + 1])
            labels[row, self.class_ids[start:stop]] = self.probabilities[start:stop]
        return labels


def read_manifest(table: Table, number: int | None) -> ManifestLabels:
    """Read a version of a manifest; raise NotInStore when there is none, BadInput for a table of another kind."""
    version = table.version(number)
    wanted = ["image_id", "class_ids", "probabilities", "copies", "status"]
    names = {column.name for column in version.columns}
    classes = read_classes(version.metadata)
    if not names.issuperset(wanted) or classes is None:
        raise BadInput(f"manifest: expected a table that select made, with classes, got {table.name}")
    rows = table.read(version, wanted)
    rows = rows.filter(pc.equal(rows["status"], Status.DONE.value))
    return ManifestLabels(
        name=table.name,
        version=version.number,
        digest=version.sha256,
        classes=classes,
        image_ids=rows["image_id"].to_pylist(),
        class_ids=rows["class_ids"],
        probabilities=rows["probabilities"],
        copies=rows["copies"].to_numpy().astype(np.int64),
    )
