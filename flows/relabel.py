"""The flow that runs a teacher over a dataset and stores its label maps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.signature import takes
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import open_store
from labelmill.tasks.summarise import count_agreement, count_statuses, find_top_classes

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.relabel.job import RelabelRun
    from labelmill.tasks.relabel.shards import Shard
    from labelmill.tasks.store.receipts import Receipt

TOP_CLASSES_SHOWN = 5


@flow(name="relabel")
@takes(RelabelParameters)
def relabel(parameters: RelabelParameters) -> Outcome:
    """Run a teacher over a dataset's images and store a label map for each."""
    from labelmill.tasks.relabel.job import commit_run, prepare_run

    run = prepare_run(parameters)
    started = time.monotonic()
    meter = ProgressMeter("images", run.images)
    receipts = []
    for shard in run.shards:
        check_stop()
        receipt = run.job.label_maps.receipts.find(shard.key, run=run.job.run)
        if receipt is None:
            receipt = _label_shard(shard.number, untracked((run, shard, meter)))
        else:
            meter.add(reused=len(shard), rejected=receipt.counts["rejected"])
        receipts.append(receipt)
    worked = meter.finish().done
    version = commit_run(run, receipts)
    return _describe(run, version, worked, time.monotonic() - started)


@task(name="label-shard", task_run_name="shard-{number}", cache_policy=NO_CACHE)
def _label_shard(number: int, work: tuple[RelabelRun, Shard, ProgressMeter]) -> Receipt:
    from labelmill.tasks.relabel.shards import label_shard

    run, shard, meter = work
    return label_shard(run.job, shard, on_batch=lambda images, rejected: meter.add(done=images, rejected=rejected))


def _describe(run: RelabelRun, version: Version, worked: int, seconds: float) -> Outcome:
    store = open_store(run.parameters.store)
    done, rejected = count_statuses(store, version.table, version.number)
    same, compared = count_agreement(store, version.table, version.number)
    top = find_top_classes(store, version.table, version.number, TOP_CLASSES_SHOWN)
    agreement = f"{same / compared:.1%} of {compared}" if compared else f"not compared: {run.match.reason}"
    teacher, (height, width) = run.job.teacher, run.grid
    return Outcome(
        title=f"relabel {run.parameters.dataset} with {teacher.name}",
        table=version.table,
        version=version.number,
        images=version.rows,
        done=done,
        rejected=rejected,
        seconds=seconds,
        worked=worked,
        facts={
            "teacher": f"{teacher.name}, {teacher.weights_source}, digest {teacher.digest[:12]}",
            "map": f"{height}x{width} cells, top {run.job.settings.top_k} of {teacher.num_classes} classes, "
            f"{sum(p.bytes for p in version.parts) / max(done, 1):,.0f} bytes an image",
            "temperature": f"{run.calibration.temperature} (fitted on {run.calibration.images} images)",
            "pooled class is the label": agreement,
            "top classes by cells": ", ".join(f"{name.split(',')[0]} {cells}" for name, cells in top),
        },
    )
