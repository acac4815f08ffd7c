"""The histograms of a shard's images, counted in threads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.images import Reason, Status
from labelmill.schemas.statistics import CHANNELS, STATISTICS_SCHEMA
from labelmill.tasks.images.decode_image import Pixels
from labelmill.tasks.images.read_ingested import read_pixels
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.stop import check_stop
from labelmill.tasks.threads import open_threads

IMAGES_AT_ONCE = 128
"""Images that a thread takes at once."""

VALUES_AT_ONCE = 3 * 2**18
"""Values counted in one call: small images are put together, so that the call costs nothing beside them."""

Group = tuple[str, int | None, str, str | None]
"""Split, label, status and reason."""

Counts = npt.NDArray[np.int64]

_CHANNEL = np.array([0, 256, 512], np.uint16)


@dataclass(slots=True)
class Tally:
    """Images, pixels and (768,) counts of red, green and blue by value."""

    images: int = 0
    pixels: int = 0
    counts: Counts = field(default_factory=lambda: np.zeros(768, np.int64))

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.images += other.images
        self.pixels += other.pixels
        self.counts += other.counts


def count_values(pictures: Sequence[Pixels]) -> Counts:
    """Return the (768,) counts by value of red, green and blue in (H, W, 3) uint8 images."""
    values = np.concatenate([picture.reshape(-1, 3) for picture in pictures]) + _CHANNEL
    return np.bincount(values.reshape(-1), minlength=768)


def count_shard(
    rows: pa.Table,
    roots: Mapping[str, str],
    *,
    workers: int,
    max_pixels: int,
    on_batch: Callable[[int, int], None] = lambda images, rejected: None,
) -> dict[Group, Tally]:
    """Return the tallies of rows of an images table, by split, label, status and reason.

    Rows that were rejected at ingest keep their reason; images that can no longer be read get one. `on_batch(images,
    rejected)` is called from the threads. Raises WorkFailed when the process was asked to stop.
    """
    listed = rows.to_pylist()

    def work(start: int) -> dict[Group, Tally]:
        check_stop()
        tallies = _count_batch(listed[start : start + IMAGES_AT_ONCE], roots, max_pixels)
        images = sum(tally.images for tally in tallies.values())
        on_batch(images, sum(tally.images for group, tally in tallies.items() if group[2] != Status.DONE))
        return tallies

    merged: dict[Group, Tally] = defaultdict(Tally)
    with open_threads(workers, name="statistics") as threads:
        for tallies in threads.map(work, range(0, len(listed), IMAGES_AT_ONCE)):
            for group, tally in tallies.items():
                merged[group].add(tally)
    return merged


def _count_batch(rows: Sequence[dict[str, Any]], roots: Mapping[str, str], max_pixels: int) -> dict[Group, Tally]:
    tallies: dict[Group, Tally] = defaultdict(Tally)
    waiting: dict[Group, list[Pixels]] = defaultdict(list)
    values: dict[Group, int] = defaultdict(int)
    for row in rows:
        split, label = row["split"], row["label"]
        try:
            if row["status"] != Status.DONE:
                raise RejectedImage(Reason(row["reason"]), "")
            pixels = read_pixels(row, roots[split], max_pixels=max_pixels)
        except RejectedImage as rejected:
            tallies[split, label, Status.REJECTED.value, rejected.reason.value].images += 1
            continue
        group: Group = (split, label, Status.DONE.value, None)
        tallies[group].images += 1
        tallies[group].pixels += pixels.size // 3
        waiting[group].append(pixels)
        values[group] += pixels.size
        if values[group] >= VALUES_AT_ONCE:
            tallies[group].counts += count_values(waiting.pop(group))
            values[group] = 0
    for group, pictures in waiting.items():
        tallies[group].counts += count_values(pictures)
    return tallies


def build_rows(tallies: Mapping[Group, Tally]) -> pa.Table:
    """Return a row of STATISTICS_SCHEMA for each group, in an order that no thread decides."""
    rows = []
    for group in sorted(tallies, key=lambda group: tuple((value is not None, value) for value in group)):
        split, label, status, reason = group
        tally = tallies[group]
        counts = tally.counts.reshape(3, 256).tolist() if status == Status.DONE else [None] * 3
        row: dict[str, object] = {"split": split, "label": label, "status": status, "reason": reason}
        row |= {"images": tally.images, "pixels": tally.pixels}
        rows.append(row | dict(zip(CHANNELS, counts, strict=True)))
    return pa.Table.from_pylist(rows, schema=STATISTICS_SCHEMA)


def add_up(rows: pa.Table) -> dict[str, Counts]:
    """Return the (256,) counts by value of each channel over all rows (status, red, green, blue) that are done."""
    done = rows.filter(pc.equal(rows["status"], Status.DONE))
    return {
        channel: done[channel].combine_chunks().flatten().to_numpy().reshape(-1, 256).sum(0) for channel in CHANNELS
    }
