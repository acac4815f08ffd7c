"""The flow that extracts an archive."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import ExtractParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop

if TYPE_CHECKING:
    from labelmill.tasks.archives.job import Extracted, ExtractRun
    from labelmill.tasks.written.file_tree import FileTree

FILES_IN_A_TASK = 50_000


@define_flow("extract", ExtractParameters, run_name="extract {source} to {out}")
def extract(parameters: ExtractParameters) -> Outcome:
    """Extract a tar, a tar of tars or a zip: nothing outside the folder, no links, no file replaced."""
    from labelmill.tasks.archives.job import Extracted, check_digests, prepare_extract
    from labelmill.tasks.written.file_tree import FileTree

    started = time.monotonic()
    if parameters.sha256 or parameters.md5:
        reading = ProgressMeter("bytes of the archive", os.path.getsize(parameters.source))
        check_digests(parameters, on_bytes=lambda count: reading.add(done=count))
        reading.finish()
    run = prepare_extract(parameters)
    meter = ProgressMeter("files", len(run.members))
    extracted = Extracted()
    with FileTree(parameters.out) as tree:
        for start in range(0, len(run.members), FILES_IN_A_TASK):
            check_stop()
            extracted += _extract_files(start, untracked((run, tree, meter)))
    meter.finish()
    return _describe(run, extracted, time.monotonic() - started)


@task(name="extract-files", task_run_name="files from {start}", cache_policy=NO_CACHE)
def _extract_files(start: int, work: tuple[ExtractRun, FileTree, ProgressMeter]) -> Extracted:
    from labelmill.tasks.archives.job import extract_members

    run, tree, meter = work

    def on_batch(batch: Extracted) -> None:
        refused = batch.refused.total()
        meter.add(done=batch.written + refused, reused=batch.kept, rejected=refused)

    return extract_members(run, tree, run.members[start : start + FILES_IN_A_TASK], on_batch=on_batch)


def _describe(run: ExtractRun, extracted: Extracted, seconds: float) -> Outcome:
    refused = Counter(run.refused) + extracted.refused
    done = extracted.written + extracted.kept
    return Outcome(
        title=f"extract {run.parameters.source}",
        table=None,
        counted="files",
        images=done + refused.total(),
        done=done,
        rejected={str(reason): count for reason, count in refused.most_common()},
        seconds=seconds,
        worked=extracted.written,
        facts={
            "files": f"{extracted.written:,} written, {extracted.kept:,} as they were, in {run.parameters.out}",
        },
    )
