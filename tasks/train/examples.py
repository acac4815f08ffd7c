"""The images that a student learns from or is measured on: rows of an images version with their labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.models.class_match import match_classes
from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.locations import join_location
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.shards import find_roots
from labelmill.tasks.splits.draw import draw
from labelmill.tasks.store.table import Table
from labelmill.tasks.train.splits import check_split

Ids = npt.NDArray[np.int64]

_COLUMNS = (
    "image_id", "split", "uri", "width", "height", "format", "mode", "bytes", "sha256", "label", "labels", "status",
    "reason",
)  # fmt: skip

NO_CLASS = -1
"""Of an image without a label, or whose class is not among the student's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Images of one version: `rows` are those of the images table that are done, in its order.

    classes: (N,) int64 ids of the student's list, or NO_CLASS; several: the ids of images of several classes, by row.
    rejected: images that were left out because their ingest rejected them, by reason.
    """

    table: str
    version: int
    rows: pa.Table
    roots: dict[str, str]
    classes: Ids
    several: dict[int, frozenset[int]] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def take(self, places: npt.ArrayLike) -> Examples:
        """Return some of the images, in the order of `places`."""
        chosen = np.asarray(places, np.int64)
        new_place = {int(place): new for new, place in enumerate(chosen)}
        return Examples(
            table=self.table,
            version=self.version,
            rows=self.rows.take(pa.array(chosen)),
            roots=self.roots,
            classes=self.classes[chosen],
            several={new_place[place]: ids for place, ids in self.several.items() if place in new_place},
            rejected=self.rejected,
        )

    def ids(self) -> list[str]:
        """Return the images' ids."""
        found: list[str] = self.rows["image_id"].to_pylist()
        return found

    def without(self, others: Examples) -> Examples:
        """Return the images that are not among others of the same table, by id; all of them for another table."""
        if others.table != self.table:
            return self
        gone = set(others.ids())
        return self.take([place for place, name in enumerate(self.ids()) if name not in gone])

    def row(self, place: int) -> dict[str, Any]:
        """Return the facts of an image, with its `path`."""
        facts = {name: self.rows[name][place].as_py() for name in self.rows.column_names}
        return facts | {"path": join_location(self.roots[facts["split"]], facts["uri"])}

    def digest(self) -> str:
        """Return a digest of the images and their labels, in order."""
        facts = self.rows.select(["image_id", "sha256", "uri"]).to_pydict()
        several = sorted((place, sorted(ids)) for place, ids in self.several.items())
        return digest_json([facts, self.classes.tolist(), several])


def read_examples(
    images: Table,
    version: Version,
    *,
    split: str | None,
    image_root: str | None,
    classes: ClassList,
    field: str = "split",
) -> Examples:
    """Read the images of a split, or of all, that are done; labels become ids of `classes` by what they mean.

    Raises BadInput for an unknown split, which `field` named, or when no image is left.
    """
    check_split(field, split, version)
    roots = find_roots(version, split=split, image_root=image_root)
    rows = images.read(version, _COLUMNS)
    if split is not None:
        rows = rows.filter(pc.equal(rows["split"], split))
    lost = rows.filter(pc.not_equal(rows["status"], Status.DONE.value))
    rows = rows.filter(pc.equal(rows["status"], Status.DONE.value)).combine_chunks()
    if not rows.num_rows:
        raise BadInput(f"{images.name}: no image is left in version {version.number}, split {split or 'any'}")
    own = read_classes(version.metadata)
    ids = [NO_CLASS if found is None else found for found in match_classes(own, classes).teacher_ids]
    lookup = np.array([*ids, NO_CLASS], np.int64)  # the last one is for images without a label
    labels = pc.fill_null(rows["label"], len(ids)).to_numpy()
    several = {}
    for place in np.flatnonzero(pc.is_valid(rows["labels"]).to_numpy(zero_copy_only=False)):
        found = frozenset(int(lookup[label]) for label in rows["labels"][int(place)].as_py())
        several[int(place)] = found - {NO_CLASS}
    return Examples(
        table=images.name,
        version=version.number,
        rows=rows,
        roots=roots,
        classes=lookup[labels],
        several=several,
        rejected=dict(sorted(Counter(lost["reason"].to_pylist()).items())),
    )


def choose_labelled(examples: Examples, *, per_class: int | None, skip_per_class: int, seed: int) -> tuple[Ids, Ids]:
    """Return the places of labelled images to learn from, and of those set aside, each ascending.

    Per class and by the draws of a seed, `skip_per_class` are set aside first; of the others `per_class` are taken, all
    when it is None. Raises BadInput, naming the class's id, when there are not so many.
    """
    chosen: list[int] = []
    aside: list[int] = []
    names = examples.ids()
    for class_id in np.unique(examples.classes[examples.classes != NO_CLASS]):
        places = np.flatnonzero(examples.classes == class_id).tolist()
        places.sort(key=lambda place: (draw("labelled", seed, names[place]), names[place]))
        wanted = skip_per_class + (per_class or 1)
        if len(places) < wanted:
            raise BadInput(
                f"labels_per_class: expected {wanted} labelled images of each class with those for validation, class "
                f"{class_id} has {len(places)}"
            )
        aside += places[:skip_per_class]
        chosen += places[skip_per_class:] if per_class is None else places[skip_per_class:wanted]
    return np.array(sorted(chosen), np.int64), np.array(sorted(aside), np.int64)
