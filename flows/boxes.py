"""Flows that bring images into a store together with their boxes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.ingest import describe_ingest, ingest_images
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import IngestCocoParameters, IngestVocParameters, IngestYoloParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.boxes.job import BoxesRun, WrittenBoxes


@define_flow("ingest-coco", IngestCocoParameters, run_name="ingest-coco {dataset} {split}")
def ingest_coco(parameters: IngestCocoParameters) -> Outcome:
    """Ingest a COCO instances file: its images, and its boxes with polygons, masks and whatever else it says."""
    from labelmill.tasks.boxes.coco import prepare_coco

    started = time.monotonic()
    meter = ProgressMeter("bytes of annotations", os.path.getsize(parameters.annotations))

    def on_bytes(count: int) -> None:
        check_stop()
        meter.add(done=count)

    run = prepare_coco(parameters, on_bytes=on_bytes)
    meter.finish()
    return _ingest_boxes(run, started)


@define_flow("ingest-yolo", IngestYoloParameters, run_name="ingest-yolo {dataset} {split}")
def ingest_yolo(parameters: IngestYoloParameters) -> Outcome:
    """Ingest boxes as YOLO has them: a .txt of `class cx cy w h` for each image."""
    from labelmill.tasks.boxes.yolo import prepare_yolo

    started = time.monotonic()
    return _ingest_boxes(prepare_yolo(parameters), started)


@define_flow("ingest-voc", IngestVocParameters, run_name="ingest-voc {dataset} {split}")
def ingest_voc(parameters: IngestVocParameters) -> Outcome:
    """Ingest Pascal VOC: an XML file of boxes for each image."""
    from labelmill.tasks.boxes.voc import prepare_voc

    started = time.monotonic()
    return _ingest_boxes(prepare_voc(parameters), started)


@task(name="write-boxes", task_run_name="{of} boxes", cache_policy=NO_CACHE)
def _write_boxes(of: str, work: tuple[BoxesRun, Version, ProgressMeter]) -> WrittenBoxes:
    from labelmill.tasks.boxes.job import write_boxes

    run, images, meter = work

    def on_done(boxes: int) -> None:
        check_stop()
        meter.add(done=boxes)

    return write_boxes(run, images, on_done=on_done)


def _ingest_boxes(run: BoxesRun, started: float) -> Outcome:
    images, worked = ingest_images(run.images)
    meter = ProgressMeter("boxes", run.source.boxes)
    of = f"{run.parameters.dataset} {run.parameters.split}"
    written = _write_boxes(of, untracked((run, images, meter)))
    meter.finish()
    flags = {f"  {flag}": f"{n:,}" for flag, n in written.counts.most_common() if flag not in {"boxes", "valid"}}
    facts = {
        "boxes": f"{written.counts['boxes']:,}, {written.counts['valid']:,} valid, "
        f"in {written.version.table}, version {written.version.number}",
        **flags,
        **run.source.facts,
    }
    return describe_ingest(run.images, images, worked, time.monotonic() - started, facts)
