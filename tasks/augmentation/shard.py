"""Draw and make the views of a shard's images, in threads; every image becomes a row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

import pyarrow as pa

from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import IMAGES_SCHEMA, TRANSIENT_REASONS, Reason, Status
from labelmill.schemas.versions import Part
from labelmill.schemas.views import VIEWS_SCHEMA, MosaicStep, View, dump_steps
from labelmill.tasks.augmentation.apply_view import apply_to_pixels
from labelmill.tasks.augmentation.draw_view import PartnerSizes, draw_view
from labelmill.tasks.augmentation.encode_view import encode_view, name_view
from labelmill.tasks.augmentation.job import AugmentRun, Row, ShardReceipts, ViewShard, read_rows
from labelmill.tasks.augmentation.pixel_ops import Pixels, frame_of, use_one_thread
from labelmill.tasks.images.read_ingested import read_pixels
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.sources import holds_files
from labelmill.tasks.shards import RETRIED_REASONS
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import Table
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.threads import open_threads
from labelmill.tasks.written.file_tree import BadFileName, FileTree, Occupied

_IMAGES_AT_ONCE = 16
"""Images that a thread takes at once: few, for smooth progress."""

OnBatch = Callable[[int, int], None]


def find_shard(run: AugmentRun, shard: ViewShard) -> ShardReceipts | None:
    """Return what an earlier run left of a shard; None when it is to be done, or files are no longer there."""
    views = run.views.receipts.find(shard.key, run=run.run)
    if views is None or run.made is None:
        return None if views is None else ShardReceipts(views=views, images=None)
    images = run.made.receipts.find(shard.key, run=run.run)
    if images is None or not _has_files(run, run.made, images.part):
        return None
    return ShardReceipts(views=views, images=images)


def _has_files(run: AugmentRun, made: Table, part: Part) -> bool:
    for row in made.read_part(part, ["split", "uri", "bytes", "mtime_ns", "status"]).to_pylist():
        if row["status"] == Status.DONE:
            try:
                found = os.lstat(f"{run.parameters.out}/{row['split']}/{row['uri']}")
            except OSError:
                return False
            if (found.st_size, found.st_mtime_ns) != (row["bytes"], row["mtime_ns"]):
                return False
    return True


def make_shard(
    run: AugmentRun,
    shard: ViewShard,
    tree: FileTree | None,
    *,
    on_batch: OnBatch = lambda views, rejected: None,
) -> ShardReceipts:
    """Make a shard's views, write its parts and its receipts; `tree` takes the files, where there are to be any.

    Raises WorkFailed when images cannot be read because their folder itself is gone, or the disk takes no more;
    BadInput when other files are at the views' places.
    """
    rows = read_rows(run.images, shard.part, run.parameters.split).slice(shard.start, len(shard)).to_pylist()
    maker = _Maker(run, shard, tree)
    use_one_thread()
    made: list[tuple[Row, Row]] = []
    with open_threads(run.parameters.workers or os.cpu_count() or 1, name="augment") as threads:
        batches = (rows[start : start + _IMAGES_AT_ONCE] for start in range(0, len(rows), _IMAGES_AT_ONCE))
        for done in threads.map(maker.make_all, batches):
            made += done
            on_batch(len(done), sum(view["status"] != Status.DONE for view, _ in done))
    reasons = {view["reason"] for view, _ in made}
    if not TRANSIENT_REASONS.isdisjoint(reasons) and not holds_files(run.roots[shard.split]):
        raise WorkFailed(f"split {shard.split}: nothing is in {run.roots[shard.split]}; mount it, or name --image-root")
    retry = any(
        view["reason"] in RETRIED_REASONS and row["status"] == Status.DONE
        for (view, _), row in zip(made, rows, strict=True)
    )  # fmt: skip
    images = None
    if run.made is not None:
        table = pa.Table.from_pylist([image for _, image in made], schema=IMAGES_SCHEMA)
        images = _leave(run.made, run.run, shard, table, retry=retry)
    table = pa.Table.from_pylist([view for view, _ in made], schema=VIEWS_SCHEMA)
    return ShardReceipts(views=_leave(run.views, run.run, shard, table, retry=retry), images=images)


def _leave(table: Table, run: str, shard: ViewShard, rows: pa.Table, *, retry: bool) -> Receipt:
    rejected = sum(status != Status.DONE for status in rows["status"].to_pylist())
    receipt = Receipt(
        key=shard.key, run=run, part=table.write_part(rows, key=shard.key),
        counts={"done": len(rows) - rejected, "rejected": rejected}, retry=retry,
    )  # fmt: skip
    table.receipts.write(receipt)
    return receipt


class _Maker:
    """Makes the rows of views; called from many threads."""

    def __init__(self, run: AugmentRun, shard: ViewShard, tree: FileTree | None) -> None:
        self._run, self._shard, self._tree = run, shard, tree
        self._partners = run.partners.get(shard.split, {})
        self._sizes: PartnerSizes = [(name, (row["width"], row["height"])) for name, row in self._partners.items()]

    def make_all(self, rows: Sequence[Row]) -> list[tuple[Row, Row]]:
        """Return a row of VIEWS_SCHEMA and one of IMAGES_SCHEMA for each image."""
        check_stop()
        return [self._make(row) for row in rows]

    def _make(self, row: Row) -> tuple[Row, Row]:
        run, shard, given = self._run, self._shard, self._run.parameters
        view_id = name_view(row["image_id"], shard.epoch, given.format)
        record: Row = {
            "image_id": row["image_id"], "split": row["split"], "epoch": shard.epoch, "policy_digest": run.digest,
            "seed": given.seed, "view_id": view_id if self._tree else None, "status": Status.DONE.value, "reason": None,
        }  # fmt: skip
        image: Row = {
            "image_id": view_id, "split": row["split"], "uri": view_id, "label": row["label"],
            "labels": row["labels"], "wnid": row["wnid"], "status": Status.DONE.value,
        }  # fmt: skip
        try:
            if row["status"] != Status.DONE:
                raise RejectedImage(Reason(row["reason"]), row["detail"] or "")
            view, pixels = self._draw(row)
            if pixels is not None:
                image |= self._write(view_id, row["split"], pixels) | self._find_labels(row, view)
        except RejectedImage as rejected:
            why = {"status": Status.REJECTED.value, "reason": rejected.reason.value}
            return record | why, image | why | {"detail": rejected.detail}
        x1, y1, x2, y2 = view.box or (None,) * 4
        record |= {
            "width": view.width, "height": view.height, "x1": x1, "y1": y1, "x2": x2, "y2": y2,
            "flipped": view.flipped, "steps": dump_steps(view.steps),
        }  # fmt: skip
        return record, image

    def _draw(self, row: Row) -> tuple[View, Pixels | None]:
        """Draw a view and, where there are to be files, make its pixels."""
        run, given = self._run, self._run.parameters
        pixels = None
        if self._tree is not None or row["width"] is None:  # some ingests list images without looking at them
            pixels = read_pixels(row, run.roots[row["split"]], max_pixels=given.max_pixels)
        view = draw_view(
            run.policy, seed=given.seed, epoch=self._shard.epoch, image_id=row["image_id"],
            size=frame_of(pixels) if pixels is not None else (row["width"], row["height"]), partners=self._sizes,
            digest=run.digest,
        )  # fmt: skip
        if pixels is None or self._tree is None:
            return view, None
        return view, apply_to_pixels(pixels, view.steps, read_partner=self._read_partner)

    def _read_partner(self, image_id: str) -> Pixels:
        row = self._partners[image_id]
        try:
            return read_pixels(row, self._run.roots[row["split"]], max_pixels=self._run.parameters.max_pixels)
        except RejectedImage as rejected:
            raise RejectedImage(rejected.reason, f"of {image_id} in its mosaic: {rejected.detail}") from rejected

    def _find_labels(self, row: Row, view: View) -> Row:
        """Return the labels of a mosaic: those of all its images as `labels`, and no single one."""
        if not view.steps or not isinstance(view.steps[0], MosaicStep):
            return {}
        ids = [tile.image_id for tile in view.steps[0].tiles]
        labels = {row["label"] if name is None else self._partners[name]["label"] for name in ids}
        return {"label": None, "wnid": None, "labels": None if None in labels else sorted(labels)}

    def _write(self, view_id: str, split: str, pixels: Pixels) -> Row:
        data = encode_view(pixels, form=self._run.parameters.format, quality=self._run.parameters.quality)
        if self._tree is None:
            raise TypeError("no tree to write to")
        try:
            written = self._tree.write(f"{split}/{view_id}", lambda: (data,))
        except BadFileName as error:
            raise RejectedImage(Reason.BAD_NAME, str(error)) from error
        except Occupied as error:
            raise self._tree.explain(error) from error
        return {
            "width": pixels.shape[1], "height": pixels.shape[0], "format": self._run.parameters.format, "mode": "RGB",
            "bytes": written.bytes, "mtime_ns": written.mtime_ns, "sha256": hashlib.sha256(data).hexdigest(),
        }  # fmt: skip
