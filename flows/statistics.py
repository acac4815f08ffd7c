"""The flow that computes a dataset's statistics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import StatisticsParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import open_store

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.shards import Shard
    from labelmill.tasks.statistics.job import StatisticsRun
    from labelmill.tasks.store.receipts import Receipt


@define_flow("statistics", StatisticsParameters, run_name="statistics {dataset}")
def statistics(parameters: StatisticsParameters) -> Outcome:
    """Compute a dataset's exact channel means and deviations, and a page on its sizes, classes, formats and rejects."""
    from labelmill.tasks.report.put_page import put_page
    from labelmill.tasks.statistics.job import commit_statistics, prepare_statistics
    from labelmill.tasks.statistics.page import build_statistics_page

    started = time.monotonic()
    run = prepare_statistics(parameters)
    meter = ProgressMeter("images", run.rows)
    receipts = []
    for shard in run.shards:
        check_stop()
        receipt = run.table.receipts.find(shard.key, run=run.run)
        if receipt is None:
            receipt = _count_shard(parameters.dataset, shard.number, untracked((run, shard, meter)))
        else:
            meter.add(reused=len(shard), rejected=receipt.counts["rejected"])
        receipts.append(receipt)
    worked = meter.finish().done
    version = commit_statistics(run, receipts)
    page = build_statistics_page(open_store(parameters.store), version)
    report = put_page(page, run.table, version.number, report=parameters.report)
    return _describe(run, version, report, worked, time.monotonic() - started)


@task(name="count-shard", task_run_name="{of} shard {number}", cache_policy=NO_CACHE)
def _count_shard(of: str, number: int, work: tuple[StatisticsRun, Shard, ProgressMeter]) -> Receipt:
    from labelmill.tasks.statistics.job import count_images

    run, shard, meter = work
    return count_images(run, shard, on_batch=lambda images, rejected: meter.add(done=images, rejected=rejected))


def _describe(run: StatisticsRun, version: Version, report: str, worked: int, seconds: float) -> Outcome:
    rows = run.table.read(version, ["status", "reason", "images"]).to_pylist()
    rejected: dict[str, int] = {}
    for row in rows:
        if row["reason"] is not None:
            rejected[row["reason"]] = rejected.get(row["reason"], 0) + row["images"]
    images = sum(row["images"] for row in rows)
    mean, std = (
        ", ".join("none" if value is None else f"{value:.6f}" for value in version.metadata[name])
        for name in ("mean", "std")
    )
    return Outcome(
        title=f"statistics of {run.parameters.dataset}, {run.parameters.split or 'all splits'}",
        table=version.table,
        version=version.number,
        images=images,
        done=images - sum(rejected.values()),
        rejected=rejected,
        seconds=seconds,
        worked=worked,
        facts={
            "mean of red, green, blue": mean,
            "deviation": std,
            "pixels": f"{version.metadata['pixels']:,}",
            "report": report,
        },
    )
