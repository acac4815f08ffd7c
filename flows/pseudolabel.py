"""The flow that runs teachers over whole images and stores what they say."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import PseudolabelParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import open_store
from labelmill.tasks.summarise import count_agreement, count_statuses

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.pseudo_labels.job import PseudolabelRun
    from labelmill.tasks.shards import Shard
    from labelmill.tasks.store.receipts import Receipt


@define_flow("pseudolabel", PseudolabelParameters, run_name="pseudolabel {dataset} by {teacher}")
def pseudolabel(parameters: PseudolabelParameters) -> Outcome:
    """Run fixed teachers over a dataset's images and store how likely each class is."""
    from labelmill.tasks.pseudo_labels.job import commit_pseudo_labels, prepare_pseudolabel

    run = prepare_pseudolabel(parameters)
    started = time.monotonic()
    with closing(run.predictor):
        meter = ProgressMeter("images", run.rows)
        receipts = []
        for shard in run.shards:
            check_stop()
            receipt = run.table.receipts.find(shard.key, run=run.run)
            if receipt is None:
                of = f"{parameters.dataset} by {run.teacher_names}"
                receipt = _predict_shard(of, shard.number, untracked((run, shard, meter)))
            else:
                meter.add(reused=len(shard), rejected=receipt.counts["rejected"])
            receipts.append(receipt)
        worked = meter.finish().done
        version = commit_pseudo_labels(run, receipts)
    return _describe(run, version, worked, time.monotonic() - started)


@task(name="predict-shard", task_run_name="{of} shard {number}", cache_policy=NO_CACHE)
def _predict_shard(of: str, number: int, work: tuple[PseudolabelRun, Shard, ProgressMeter]) -> Receipt:
    from labelmill.tasks.pseudo_labels.job import predict_shard

    run, shard, meter = work
    return predict_shard(run, shard, on_batch=lambda images, rejected: meter.add(done=images, rejected=rejected))


def _describe(run: PseudolabelRun, version: Version, worked: int, seconds: float) -> Outcome:
    store = open_store(run.parameters.store)
    done, rejected = count_statuses(store, version.table, version.number)
    same, compared = count_agreement(store, version.table, version.number, "pseudo_class")
    teachers = "; ".join(f"{t.name}, {t.weights_source}, digest {t.digest[:12]}" for t in run.teachers)
    return Outcome(
        title=f"pseudolabel {run.parameters.dataset} with {run.teacher_names}",
        table=version.table,
        version=version.number,
        images=version.rows,
        done=done,
        rejected=rejected,
        seconds=seconds,
        worked=worked,
        facts={
            "teacher" if len(run.teachers) == 1 else "teachers": teachers,
            "kept": f"top {run.settings.top_k} of {run.teachers[0].num_classes} classes, "
            f"{sum(p.bytes for p in version.parts) / max(done, 1):,.0f} bytes an image",
            "views": run.settings.views,
            "pseudo class is the label": f"{same / compared:.1%} of {compared}"
            if compared
            else f"not compared: {run.match.reason or 'no image has a label'}",
        },
    )
