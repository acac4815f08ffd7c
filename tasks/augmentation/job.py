"""Views of a dataset from their parameters to their versions, in steps that a flow calls in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.augmentation import Mosaic, Policy
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import IMAGES_SCHEMA, Status
from labelmill.schemas.parameters import AugmentParameters
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.schemas.views import VIEWS_SCHEMA
from labelmill.tasks.augmentation.preflight import refuse_other_dataset, refuse_other_table
from labelmill.tasks.augmentation.read_policy import read_policy
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.shards import find_roots, read_split
from labelmill.tasks.store import Table, open_store
from labelmill.tasks.store.receipts import Receipt

COLUMNS = (
    "image_id", "split", "uri", "width", "height", "format", "mode", "bytes", "sha256", "label", "labels", "wnid",
    "status", "reason", "detail",
)  # fmt: skip

DECIDING_PACKAGES = ("albumentations", "albucore", "numpy", "opencv-python-headless", "pillow", "simplejpeg")
"""What decides the pixels of a view and the bytes of its file, besides the code: a shard of others is done anew."""

Row = dict[str, Any]
"""A row of an images table."""

_REVISION = 1
"""Counts changes of what steps do to pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewShard:
    """Rows `start` to `stop` of a part of the images table, in one epoch."""

    number: int
    split: str
    epoch: int
    part: Part
    start: int
    stop: int
    key: str

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentRun:
    """A prepared run. `made` is the images table of the new dataset, None where views are recorded only.

    `partners` are a split's images that a mosaic may take, by id.
    """

    parameters: AugmentParameters
    policy: Policy
    digest: str
    images: Table
    images_version: Version
    boxes: Table | None
    boxes_version: Version | None
    views: Table
    made: Table | None
    roots: dict[str, str]
    partners: dict[str, dict[str, Row]]
    shards: tuple[ViewShard, ...]
    run: str

    @property
    def rows(self) -> int:
        """Views of all shards."""
        return sum(len(shard) for shard in self.shards)


def prepare_augment(parameters: AugmentParameters) -> AugmentRun:
    """Cut images and epochs into shards.

    Raises BadInput when there are no images, the policy is none, or the new dataset's name belongs to another one;
    NotInStore for a table or version that does not exist.
    """
    policy = read_policy(parameters.policy)
    store = open_store(parameters.store)
    images = store.table(f"{parameters.dataset}.images")
    version = images.version(parameters.images_version)
    boxes = store.table(f"{parameters.dataset}.boxes")
    has_boxes = bool(parameters.boxes_version or boxes.numbers()) and parameters.into is not None
    roots = find_roots(version, split=parameters.split, image_root=parameters.image_root)
    partners = _find_partners(policy, images, version, parameters)
    digest = policy.digest()
    shards = tuple(_cut(parameters, images, version, _decide(parameters, digest, partners)))
    if not shards:
        raise BadInput(f"{images.name}: no images to make views of in version {version.number}")
    made = None
    if parameters.into is not None:
        made = store.table(f"{parameters.into}.images")
        refuse_other_dataset(made, parameters)
    views = store.table(f"{parameters.into or parameters.dataset}.{parameters.table}")
    refuse_other_table(views)
    run = digest_json([shard.key for shard in shards])
    for table in [views, *([made] if made else [])]:
        table.receipts.open_run(run)
    return AugmentRun(
        parameters=parameters, policy=policy, digest=digest, images=images, images_version=version,
        boxes=boxes if has_boxes else None,
        boxes_version=boxes.version(parameters.boxes_version) if has_boxes else None,
        views=views, made=made, roots=roots, partners=partners, shards=shards, run=run,
    )  # fmt: skip


def _find_partners(
    policy: Policy, images: Table, version: Version, parameters: AugmentParameters
) -> dict[str, dict[str, Row]]:
    """Return by split the whole images of known size, in the order of their ids; none unless a mosaic needs them."""
    if not any(isinstance(operation, Mosaic) for operation in policy.operations):
        return {}
    partners: dict[str, dict[str, Row]] = {}
    rows = images.read(version, COLUMNS)
    whole = rows.filter(pc.and_(pc.equal(rows["status"], Status.DONE), pc.is_valid(rows["width"])))
    for row in whole.sort_by("image_id").to_pylist():
        if parameters.split in (None, row["split"]):
            partners.setdefault(row["split"], {})[row["image_id"]] = row
    return partners


def _decide(parameters: AugmentParameters, digest: str, partners: dict[str, dict[str, Row]]) -> list[object]:
    """Return what decides a shard's bytes besides its rows."""
    given = parameters.model_dump(mode="json", include={"seed", "into", "format", "quality", "max_pixels"})
    others = {
        split: digest_json(
            [[name, row["width"], row["height"], row["sha256"], row["label"]] for name, row in own.items()]
        )
        for split, own in partners.items()
    }
    return [_REVISION, digest, given, others, {name: version_of(name) for name in DECIDING_PACKAGES}]


def _cut(parameters: AugmentParameters, images: Table, version: Version, decided: list[object]) -> Iterator[ViewShard]:
    number = 0
    pieces = []
    for part in version.parts:
        rows = read_rows(images, part, parameters.split)
        for start in range(0, rows.num_rows, parameters.shard_size):
            piece = rows.slice(start, parameters.shard_size)
            facts = digest_json([list(row.values()) for row in piece.to_pylist()])
            pieces.append((part, start, start + piece.num_rows, piece["split"][0].as_py(), facts))
    for epoch in range(parameters.first_epoch, parameters.first_epoch + parameters.epochs):
        for part, start, stop, split, facts in pieces:
            key = digest_json(["augment", decided, epoch, facts])
            yield ViewShard(number=number, split=split, epoch=epoch, part=part, start=start, stop=stop, key=key)
            number += 1


def read_rows(images: Table, part: Part, split: str | None) -> pa.Table:
    """Return the rows of a part, of one split or all."""
    return read_split(images, part, split, COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardReceipts:
    """What a finished shard left: its part of the views, and of the new dataset's images."""

    views: Receipt
    images: Receipt | None


def commit_images(run: AugmentRun, receipts: Sequence[ShardReceipts]) -> Version | None:
    """Make the files of the views a version of the new dataset's images; None where none were written."""
    if run.made is None:
        return None
    parts = [receipt.images.part for receipt in receipts if receipt.images is not None]
    out = str(run.parameters.out)
    metadata = {
        "kind": "images",
        "roots": {split: f"{out}/{split}" for split in dict.fromkeys(shard.split for shard in run.shards)},
        "classes": run.images_version.metadata["classes"],
    }
    return _commit(run, run.made, parts, metadata, IMAGES_SCHEMA)


def commit_views(run: AugmentRun, receipts: Sequence[ShardReceipts]) -> Version:
    """Make the records of the views a version of their table; the latest stays when it holds them already."""
    metadata = {
        "kind": "views",
        "policy": run.policy.model_dump(mode="json"),
        "policy_digest": run.digest,
        "seed": run.parameters.seed,
        "epochs": [run.parameters.first_epoch, run.parameters.first_epoch + run.parameters.epochs],
        "images": f"{run.images.name} v{run.images_version.number}",
        "software": {name: version_of(name) for name in DECIDING_PACKAGES},
    }
    return _commit(run, run.views, [receipt.views.part for receipt in receipts], metadata, VIEWS_SCHEMA)


def _commit(
    run: AugmentRun, table: Table, parts: Sequence[Part], metadata: dict[str, Any], schema: pa.Schema
) -> Version:
    lineage = make_lineage("augment", run.parameters, inputs=find_inputs(run))
    version = table.replace(parts, schema=schema, metadata=metadata, lineage=lineage)
    table.receipts.close_run(run.run)
    return version


def find_inputs(run: AugmentRun) -> dict[str, int]:
    """Return the tables, with versions, that the views are made of."""
    inputs = {run.images.name: run.images_version.number}
    if run.boxes is not None and run.boxes_version is not None:
        inputs[run.boxes.name] = run.boxes_version.number
    return inputs
