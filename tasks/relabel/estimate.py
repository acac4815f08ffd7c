"""What a run would take, measured on a sample of its own images with its own engine, before it starts."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.relabel.job import RelabelRun
from labelmill.tasks.relabel.shards import LABEL_MAPS_LAYOUT, build_rows, label_rows, labels_of, read_rows
from labelmill.tasks.shards import Shard
from labelmill.tasks.store.parquet import write_parquet

SAMPLE_BATCHES = 4
"""Batches for each thread (or GPU) that are timed, after as many that warm caches and clocks."""

SAMPLE_MAX = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What is left to do and how long it would take; `sampled` images were labelled to know.

    `bytes_per_image` is what a row takes in the store.
    """

    images: int
    done_before: int
    sampled: int
    images_per_s: float
    bytes_per_image: float

    @property
    def seconds(self) -> float:
        """How long the images that are left take at this rate."""
        return self.images / self.images_per_s

    @property
    def bytes(self) -> float:
        """What they take in the store."""
        return self.images * self.bytes_per_image


def estimate_run(run: RelabelRun) -> Estimate:
    """Label some of the images that a run still has to do, and throw the labels away.

    Raises WorkFailed when none of the sampled images can be read.
    """
    receipts = run.job.label_maps.receipts
    left = [shard for shard in run.mine if receipts.find(shard.key, run=run.job.run) is None]
    images = sum(len(shard) for shard in left)
    done = run.images - images
    if not left:
        return Estimate(images=0, done_before=done, sampled=0, images_per_s=1.0, bytes_per_image=0.0)
    size = min(
        SAMPLE_MAX, SAMPLE_BATCHES * run.job.settings.batch_size * (run.parameters.workers or os.cpu_count() or 1)
    )
    _label(run, left[0], size)  # warm
    started = time.monotonic()
    sampled, stored = _label(run, left[len(left) // 2], size)
    if not sampled:
        raise WorkFailed("no image of the sample could be read; where are the images? Say so with image_root")
    return Estimate(
        images=images,
        done_before=done,
        sampled=sampled,
        images_per_s=sampled / (time.monotonic() - started),
        bytes_per_image=stored / sampled,
    )


def _label(run: RelabelRun, shard: Shard, size: int) -> tuple[int, int]:
    """Label the first images of a shard as a run would; return how many had a map, and the bytes of their rows."""
    rows = read_rows(run.job.images, shard.part, shard.split).slice(shard.start, min(size, len(shard)))
    results = label_rows(run.job, rows)
    table = build_rows(rows, results, labels_of(rows, run.job.teacher_labels))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.parquet"
        write_parquet(path, table, LABEL_MAPS_LAYOUT)
        return sum(r is not None and r.map is not None for r in results), path.stat().st_size
