"""The flow that clusters boxes into anchors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import AnchorsParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop

if TYPE_CHECKING:
    from labelmill.tasks.anchors.job import AnchorSet, AnchorsRun
    from labelmill.tasks.anchors.report import AnchorsReport
    from labelmill.tasks.store.receipts import Receipt


@define_flow("anchors", AnchorsParameters, run_name="anchors {dataset} k={k}")
def anchors(parameters: AnchorsParameters) -> Outcome:
    """Cluster a dataset's boxes into anchors by their IoU, and tell how well these fit and what they would learn."""
    from labelmill.tasks.anchors.job import commit_anchors, prepare_anchors
    from labelmill.tasks.anchors.report import write_report

    started = time.monotonic()
    run = prepare_anchors(parameters)
    meter = ProgressMeter("anchor sets", len(run.sets))
    receipts = []
    for wanted in run.sets:
        check_stop()
        receipt = run.table.receipts.find(wanted.key, run=run.run)
        if receipt is None:
            receipt = _make_set(parameters.dataset, wanted.k, untracked((run, wanted)))
            meter.add(done=1)
        else:
            meter.add(reused=1)
        receipts.append(receipt)
    meter.finish()
    version = commit_anchors(run, receipts)
    report = write_report(run, version, report=parameters.report)
    return _describe(run, report, time.monotonic() - started)


@task(name="cluster-anchors", task_run_name="{of} k={k}", cache_policy=NO_CACHE)
def _make_set(of: str, k: int, work: tuple[AnchorsRun, AnchorSet]) -> Receipt:
    from labelmill.tasks.anchors.job import make_set

    return make_set(*work)


def _describe(run: AnchorsRun, report: AnchorsReport, seconds: float) -> Outcome:
    rejected = run.boxes.rejected
    return Outcome(
        title=f"{run.parameters.k} anchors of {run.parameters.dataset}, {run.parameters.split or 'all splits'}",
        table=report.version.table, version=report.version.number, counted="boxes",
        images=len(run.boxes) + sum(rejected.values()), done=len(run.boxes), rejected=rejected, seconds=seconds,
        worked=len(run.boxes), facts=report.facts,
    )  # fmt: skip
