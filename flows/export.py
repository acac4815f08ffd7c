"""The flow that writes a dataset out for other tools."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import ExportParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop

if TYPE_CHECKING:
    from labelmill.tasks.export.job import ExportRun


@define_flow("export", ExportParameters, run_name="export {dataset} as {format}")
def export(parameters: ExportParameters) -> Outcome:
    """Write a dataset out for other tools: CSV, COCO, YOLO, WebDataset or an ImageFolder tree."""
    from labelmill.tasks.export.job import prepare_export

    started = time.monotonic()
    run = prepare_export(parameters)
    meter = ProgressMeter("images", run.rows)

    def on_done(images: int) -> None:
        check_stop()
        meter.add(done=images)

    _export(parameters.dataset, parameters.format, untracked(replace(run, on_done=on_done)))
    meter.finish()
    return _describe(run, time.monotonic() - started)


@task(name="export-dataset", task_run_name="{of} as {form}", cache_policy=NO_CACHE)
def _export(of: str, form: str, run: ExportRun) -> None:
    from labelmill.tasks.export.formats import export_dataset

    export_dataset(run)


def _describe(run: ExportRun, seconds: float) -> Outcome:
    exported, parameters = run.exported, run.parameters
    asked = run.rows if run.selected is None else len(run.selected)
    share = "all" if run.selected is None else f"{asked:,} of {run.rows:,}, seed {parameters.seed}"
    boxes = sum(exported.boxes_left_out.values())
    left_out = {f"  {reason}": f"{count:,}" for reason, count in exported.boxes_left_out.most_common()}
    return Outcome(
        title=f"export {parameters.dataset} as {parameters.format} to {run.out}",
        table=run.images.name,
        version=run.images_version.number,
        images=asked,
        done=asked - sum(exported.left_out.values()),
        rejected=dict(exported.left_out.most_common()),
        seconds=seconds,
        worked=exported.written,
        facts={
            "images drawn": share,
            "image files": f"{exported.written:,} written, {exported.kept:,} as they were",
            "boxes": f"{exported.boxes:,} written, {boxes:,} left out",
            **left_out,
        },
    )
