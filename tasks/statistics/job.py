"""Statistics from their parameters to their version, in steps that a flow calls in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.images import TRANSIENT_REASONS, Status
from labelmill.schemas.parameters import StatisticsParameters
from labelmill.schemas.statistics import CHANNELS, STATISTICS_SCHEMA, ChannelStatistics, describe_channel
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.tasks.ingest.sources import holds_files
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.shards import RETRIED_REASONS, Shard, find_roots, read_split
from labelmill.tasks.statistics.shard import add_up, build_rows, count_shard
from labelmill.tasks.store import Table, open_store
from labelmill.tasks.store.receipts import Receipt

COLUMNS = (
    "image_id", "split", "uri", "width", "height", "format", "mode", "bytes", "mtime_ns", "sha256", "label",
    "status", "reason",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticsRun:
    """A prepared run: which images, where they are, and the shards."""

    parameters: StatisticsParameters
    images: Table
    version: Version
    table: Table
    roots: dict[str, str]
    shards: tuple[Shard, ...]
    run: str

    @property
    def rows(self) -> int:
        """Images of all shards."""
        return sum(len(shard) for shard in self.shards)


def prepare_statistics(parameters: StatisticsParameters) -> StatisticsRun:
    """Cut the images into shards; raise BadInput when there are none, NotInStore when there is no table."""
    store = open_store(parameters.store)
    images = store.table(f"{parameters.dataset}.images")
    version = images.version(parameters.images_version)
    roots = find_roots(version, split=parameters.split, image_root=parameters.image_root)
    shards = tuple(_cut(parameters, images, version))
    if not shards:
        raise BadInput(f"{images.name}: no images to count in version {version.number}")
    table = store.table(f"{parameters.dataset}.statistics")
    run = digest_json([shard.key for shard in shards])
    table.receipts.open_run(run)
    return StatisticsRun(
        parameters=parameters, images=images, version=version, table=table, roots=roots, shards=shards, run=run
    )


def _cut(parameters: StatisticsParameters, images: Table, version: Version) -> Iterator[Shard]:
    number = 0
    for part in version.parts:
        rows = read_split(images, part, parameters.split, COLUMNS)
        for start in range(0, rows.num_rows, parameters.shard_size):
            piece = rows.slice(start, parameters.shard_size)
            facts = [_decide(row) for row in piece.to_pylist()]
            key = digest_json(["statistics 1", parameters.max_pixels, facts])
            yield Shard(
                number=number, part=part, split=parameters.split, start=start, stop=start + piece.num_rows, key=key
            )
            number += 1


def _decide(row: dict[str, Any]) -> list[object]:
    """Return what decides an image's counts; one without digest is known by place, length and time."""
    facts = [row[name] for name in ("image_id", "split", "label", "sha256", "status", "reason")]
    return facts if row["sha256"] is not None else [*facts, row["uri"], row["bytes"], row["mtime_ns"]]


def count_images(
    run: StatisticsRun, shard: Shard, *, on_batch: Callable[[int, int], None] = lambda images, rejected: None
) -> Receipt:
    """Count a shard's pixels, write its part and its receipt.

    Raises WorkFailed when images cannot be read because their folder itself is gone.
    """
    rows = read_split(run.images, shard.part, shard.split, COLUMNS).slice(shard.start, len(shard))
    tallies = count_shard(
        rows, run.roots, workers=run.parameters.workers or os.cpu_count() or 1,
        max_pixels=run.parameters.max_pixels, on_batch=on_batch,
    )  # fmt: skip
    for split in {split for split, _, _, reason in tallies if reason in TRANSIENT_REASONS}:
        if not holds_files(run.roots[split]):
            raise WorkFailed(f"split {split}: nothing is in {run.roots[split]}; mount it, or name --image-root")
    rejected = sum(tally.images for group, tally in tallies.items() if group[2] != Status.DONE)
    ingested = set(zip(rows["status"].to_pylist(), rows["reason"].to_pylist(), strict=True))
    receipt = Receipt(
        key=shard.key,
        run=run.run,
        part=run.table.write_part(build_rows(tallies), key=shard.key),
        counts={"done": len(rows) - rejected, "rejected": rejected},
        retry=any(reason in RETRIED_REASONS and (status, reason) not in ingested for _, _, status, reason in tallies),
    )
    run.table.receipts.write(receipt)
    return receipt


def commit_statistics(run: StatisticsRun, receipts: Sequence[Receipt]) -> Version:
    """Make the shards' parts a version; the latest stays when it holds them already."""
    parts = [receipt.part for receipt in receipts]
    channels = merge_channels(run.table, parts)
    inputs = {run.images.name: run.version.number}
    metadata = {
        "kind": "statistics",
        "split": run.parameters.split,
        "mean": [round(channel.mean, 12) if channel.pixels else None for channel in channels],
        "std": [round(channel.deviation, 12) if channel.pixels else None for channel in channels],
        "pixels": channels[0].pixels,
        "classes": run.version.metadata["classes"],
    }
    lineage = make_lineage("statistics", run.parameters, inputs=inputs)
    version = run.table.replace(parts, schema=STATISTICS_SCHEMA, metadata=metadata, lineage=lineage)
    run.table.receipts.close_run(run.run)
    return version


def merge_channels(table: Table, parts: Sequence[Part]) -> list[ChannelStatistics]:
    """Return the statistics of red, green and blue over some parts."""
    totals = dict.fromkeys(CHANNELS, np.zeros(256, np.int64))
    for part in parts:
        for channel, counts in add_up(table.read_part(part, ["status", *CHANNELS])).items():
            totals[channel] = totals[channel] + counts
    return [describe_channel(channel, counts.tolist()) for channel, counts in totals.items()]
