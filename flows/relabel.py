"""The flow that runs a teacher over a dataset and stores its label maps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait

from labelmill.flows.definition import define_flow
from labelmill.flows.runners import label_on_cluster
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import ask_to_stop, check_stop
from labelmill.tasks.store import open_store
from labelmill.tasks.summarise import count_agreement, count_rejected, count_statuses, find_top_classes

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.relabel.job import RelabelRun
    from labelmill.tasks.relabel.movement import Movement
    from labelmill.tasks.shards import Shard
    from labelmill.tasks.store.receipts import Receipt

TOP_CLASSES_SHOWN = 5


@define_flow("relabel", RelabelParameters, run_name="relabel {dataset} by {teacher}")
def relabel(parameters: RelabelParameters) -> Outcome:
    """Run a teacher over a dataset's images and store a label map for each."""
    from labelmill.tasks.relabel.job import commit_run, prepare_run

    run = prepare_run(parameters)
    started = time.monotonic()
    with closing(run.job.engine):
        meter = ProgressMeter("images", run.images)
        mine = _label_shards(run, meter)
        worked = meter.finish().done
        version = commit_run(run, mine)
    seconds = time.monotonic() - started
    return _describe(run, version, worked, seconds) if version else _describe_share(run, mine, worked, seconds)


def _label_shards(run: RelabelRun, meter: ProgressMeter) -> list[Receipt]:
    """Label what no earlier run has, where the run's parameters say; return the receipts of the share in order."""
    receipts: dict[int, Receipt] = {}
    missing: list[Shard] = []
    for shard in run.mine:
        check_stop()
        receipt = run.job.label_maps.receipts.find(shard.key, run=run.job.run)
        if receipt is None:
            missing.append(shard)
        else:
            meter.add(reused=len(shard), rejected=receipt.counts["rejected"])
            receipts[shard.number] = receipt
    of = f"{run.parameters.dataset} by {run.parameters.teacher}"
    if missing and run.parameters.runner != "threads":
        receipts |= label_on_cluster(run, missing, of, meter)
    else:
        receipts |= _label_here(run, missing, of, meter)
    return [receipts[shard.number] for shard in run.mine]


def _label_here(run: RelabelRun, shards: Sequence[Shard], of: str, meter: ProgressMeter) -> dict[int, Receipt]:
    """Label shards in this process, as many at once as the engine wants; return their receipts by number."""
    receipts: dict[int, Receipt] = {}
    working: deque[tuple[int, PrefectFuture[Receipt]]] = deque()
    at_once = run.job.engine.shards_at_once
    try:
        for shard in shards:
            check_stop()
            if at_once == 1:
                receipts[shard.number] = _label_shard(of, shard.number, untracked((run, shard, meter)))
            else:
                if len(working) == at_once:
                    _take_oldest(working, receipts)
                working.append((shard.number, _label_shard.submit(of, shard.number, untracked((run, shard, meter)))))
        while working:
            _take_oldest(working, receipts)
    except BaseException as error:
        if not isinstance(error, Exception):  # the process shall end
            ask_to_stop()
        wait([future for _, future in working])  # what they finish is kept, and the engine is theirs until then
        raise
    return receipts


def _take_oldest(working: deque[tuple[int, PrefectFuture[Receipt]]], receipts: dict[int, Receipt]) -> None:
    number, future = working[0]
    receipts[number] = future.result()
    working.popleft()  # not before: whoever ends the run waits for all that may still use the engine


@task(name="label-shard", task_run_name="{of} shard {number}", cache_policy=NO_CACHE)
def _label_shard(of: str, number: int, work: tuple[RelabelRun, Shard, ProgressMeter]) -> Receipt:
    from labelmill.tasks.relabel.shards import label_shard

    run, shard, meter = work
    return label_shard(run.job, shard, on_batch=lambda images, rejected: meter.add(done=images, rejected=rejected))


def _describe_share(run: RelabelRun, mine: Sequence[Receipt], worked: int, seconds: float) -> Outcome:
    rejected = count_rejected(run.job.label_maps, [receipt.part for receipt in mine])
    return Outcome(
        title=f"relabel {run.parameters.dataset} with {run.job.teacher.name}, share {run.parameters.share}",
        table=run.job.label_maps.name,
        version=None,
        images=run.images,
        done=run.images - sum(rejected.values()),
        rejected=rejected,
        seconds=seconds,
        worked=worked,
        facts={
            "this share": f"{len(run.mine)} of {len(run.shards)} shards",
            "version": "made by the share that ends last",
        },
    )


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
            **_describe_movement(run.calibration.movement),
            "pooled class is the label": agreement,
            "top classes by cells": ", ".join(f"{name.split(',')[0]} {cells}" for name, cells in top),
        },
    )


def _describe_movement(movement: Movement | None) -> dict[str, str]:
    if movement is None:
        return {}
    return {
        "against fp32": f"labels moved by {movement.total_variation:.3f} in total variation, same class for "
        f"{movement.same_class:.1%} (on {movement.images} images)"
    }
