"""The flow that draws, records and writes views of a dataset's images."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import AugmentParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop
from labelmill.tasks.summarise import count_rejected

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.augmentation.carry_boxes import BoxCounts
    from labelmill.tasks.augmentation.job import AugmentRun, ShardReceipts, ViewShard
    from labelmill.tasks.written.file_tree import FileTree


@define_flow("augment", AugmentParameters, run_name="augment {dataset} by {policy}")
def augment(parameters: AugmentParameters) -> Outcome:
    """Draw views of a dataset's images by a policy: record them, or write them as a dataset of their own."""
    from labelmill.tasks.augmentation.job import commit_images, commit_views, prepare_augment
    from labelmill.tasks.augmentation.shard import find_shard
    from labelmill.tasks.augmentation.sheet import build_sheet
    from labelmill.tasks.report.put_page import put_page
    from labelmill.tasks.written.file_tree import FileTree

    started = time.monotonic()
    run = prepare_augment(parameters)
    meter = ProgressMeter("views", run.rows)
    receipts = []
    with ExitStack() as stack:
        tree = stack.enter_context(FileTree(parameters.out)) if parameters.out else None
        for shard in run.shards:
            check_stop()
            found = find_shard(run, shard)
            if found is None:
                found = _make_shard(parameters.dataset, shard.number, untracked((run, shard, tree, meter)))
            else:
                meter.add(reused=len(shard), rejected=found.views.counts["rejected"])
            receipts.append(found)
    worked = meter.finish().done
    images = commit_images(run, receipts)
    boxes = _carry_boxes(parameters.dataset, untracked((run, receipts))) if run.boxes is not None else None
    views = commit_views(run, receipts)
    report = put_page(build_sheet(run, views), run.views, views.number, report=parameters.report)
    return _describe(run, views, images, boxes, report, worked, time.monotonic() - started)


@task(name="make-views", task_run_name="{of} shard {number}", cache_policy=NO_CACHE)
def _make_shard(
    of: str, number: int, work: tuple[AugmentRun, ViewShard, FileTree | None, ProgressMeter]
) -> ShardReceipts:
    from labelmill.tasks.augmentation.shard import make_shard

    run, shard, tree, meter = work
    return make_shard(run, shard, tree, on_batch=lambda views, rejected: meter.add(done=views, rejected=rejected))


@task(name="carry-boxes", task_run_name="{of} boxes", cache_policy=NO_CACHE)
def _carry_boxes(of: str, work: tuple[AugmentRun, list[ShardReceipts]]) -> tuple[Version, BoxCounts] | None:
    from labelmill.tasks.augmentation.carry_boxes import commit_boxes

    def on_done(boxes: int) -> None:
        check_stop()

    return commit_boxes(*work, on_done=on_done)


def _describe(
    run: AugmentRun,
    views: Version,
    images: Version | None,
    boxes: tuple[Version, BoxCounts] | None,
    report: str,
    worked: int,
    seconds: float,
) -> Outcome:
    rejected = count_rejected(run.views, views.parts)
    facts = {"policy": f"{run.policy.name}, {run.digest[:16]}, seed {run.parameters.seed}"}
    if images is not None:
        facts["images"] = f"{images.table} v{images.number}, files in {run.parameters.out}"
    if boxes is not None:
        version, counts = boxes
        facts["boxes"] = f"{version.table} v{version.number}: {counts.carried:,} carried"
        facts |= {f"boxes {why}": f"{count:,}" for why, count in counts.left_out.most_common() if count}
    return Outcome(
        title=f"augment {run.parameters.dataset} by {run.policy.name}",
        table=views.table,
        version=views.number,
        counted="views",
        images=views.rows,
        done=views.rows - sum(rejected.values()),
        rejected=rejected,
        seconds=seconds,
        worked=worked,
        facts={**facts, "contact sheet": report},
    )
