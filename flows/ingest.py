"""Flows that bring images into a store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import IngestFolderParameters, IngestImagenetParameters, IngestTableParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import open_store
from labelmill.tasks.summarise import count_statuses

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.ingest.chunks import Chunk
    from labelmill.tasks.ingest.facts import FindFacts
    from labelmill.tasks.ingest.job import IngestRun
    from labelmill.tasks.ingest.readers import Readers
    from labelmill.tasks.store.receipts import Receipt


@define_flow("ingest-imagenet", IngestImagenetParameters, run_name="ingest-imagenet {dataset} {split}")
def ingest_imagenet(parameters: IngestImagenetParameters) -> Outcome:
    """Ingest ImageNet: a tree of wnid folders, or the flat validation folder with the devkit's ground truth."""
    from labelmill.tasks.ingest.job import prepare_imagenet
    from labelmill.tasks.ingest.readers import Readers

    started = time.monotonic()
    with Readers(workers=parameters.workers) as readers:
        return ingest_run(prepare_imagenet(parameters, on_expected=readers.expect), started, readers=readers)


@define_flow("ingest-folder", IngestFolderParameters, run_name="ingest-folder {dataset} {split}")
def ingest_folder(parameters: IngestFolderParameters) -> Outcome:
    """Ingest any tree of image files; the first folder below the source is the label."""
    from labelmill.tasks.ingest.job import prepare_folder
    from labelmill.tasks.ingest.readers import Readers

    started = time.monotonic()
    with Readers(workers=parameters.workers) as readers:
        return ingest_run(prepare_folder(parameters, on_expected=readers.expect), started, readers=readers)


@define_flow("ingest-table", IngestTableParameters, run_name="ingest-table {dataset} {split}")
def ingest_table(parameters: IngestTableParameters) -> Outcome:
    """Ingest images with labels from a table: CSV, TSV or Parquet with a row for each image."""
    from labelmill.tasks.ingest.table_file import prepare_table

    started = time.monotonic()
    prepared = prepare_table(parameters)
    return ingest_run(prepared.images, started, facts=prepared.facts)


@task(name="ingest-chunk", task_run_name="{of} chunk {number}", cache_policy=NO_CACHE)
def _ingest_chunk(of: str, number: int, work: tuple[IngestRun, Chunk, FindFacts, ProgressMeter]) -> Receipt:
    from labelmill.tasks.ingest.job import ingest_chunk

    run, chunk, read, meter = work

    def on_done(files: int) -> None:
        check_stop()
        meter.add(done=files)

    receipt = ingest_chunk(run, chunk, read=read, on_done=on_done)
    meter.add(rejected=receipt.counts["rejected"])
    return receipt


def ingest_run(
    run: IngestRun,
    started: float,
    *,
    check: Callable[[], None] = lambda: None,
    facts: Mapping[str, str] | None = None,
    readers: Readers | None = None,
) -> Outcome:
    """Do what a prepared ingest has to do and commit it; `check` raises when the source is no longer what it was."""
    version, worked = ingest_images(run, check=check, readers=readers)
    return describe_ingest(run, version, worked, time.monotonic() - started, facts)


def ingest_images(
    run: IngestRun, *, check: Callable[[], None] = lambda: None, readers: Readers | None = None
) -> tuple[Version, int]:
    """Do a prepared ingest; return the version of the images table, and how many files this run worked on."""
    from labelmill.tasks.ingest.job import commit_ingest
    from labelmill.tasks.ingest.readers import Readers

    meter = ProgressMeter("files", run.files_to_read)
    found = {chunk.number: run.table.receipts.find(chunk.key, run=run.run) for chunk in run.chunks}
    left = sum(len(chunk.files) for chunk in run.chunks if not found[chunk.number])
    receipts = []
    of = f"{run.parameters.dataset} {run.parameters.split}"
    with nullcontext(readers) if readers else Readers(workers=run.parameters.workers) as opened:
        opened.expect(run.settings.root, left)
        for chunk in run.chunks:
            receipt = found[chunk.number]
            if receipt is None:
                receipt = _ingest_chunk(of, chunk.number, untracked((run, chunk, opened.find_facts, meter)))
            else:
                meter.add(reused=len(chunk.files), rejected=receipt.counts["rejected"])
            receipts.append(receipt)
    worked = meter.finish().done
    check()
    return commit_ingest(run, receipts), worked


def describe_ingest(
    run: IngestRun, version: Version, worked: int, seconds: float, facts: Mapping[str, str] | None = None
) -> Outcome:
    """Return the outcome of an ingest, with the counts of its split; `facts` are further lines."""
    split = run.parameters.split
    done, rejected = count_statuses(open_store(run.parameters.store), version.table, version.number, split)
    plan = run.plan
    return Outcome(
        title=f"{run.flow} {run.parameters.dataset}, split {split}",
        table=version.table,
        version=version.number,
        images=done + sum(rejected.values()),
        done=done,
        rejected=rejected,
        seconds=seconds,
        worked=worked,
        facts={
            "since the last version": f"{len(plan.added)} added, {len(plan.changed)} changed, "
            f"{len(plan.removed)} removed",
            "classes": str(len(run.settings.classes)),
            "images below": str(run.settings.root),
            **({"members with a later one of their name": f"{run.repeated:,}"} if run.repeated else {}),
            **(facts or {}),
        },
    )


def join_outcomes(outcomes: Sequence[Outcome], title: str) -> Outcome:
    """Return one outcome of several splits of a dataset; each split's own facts say whose they are."""
    if len(outcomes) == 1:
        return outcomes[0]
    rejected = Counter[str]()
    for outcome in outcomes:
        rejected.update(outcome.rejected)
    return Outcome(
        title=title,
        table=outcomes[-1].table,
        version=outcomes[-1].version,
        images=sum(outcome.images for outcome in outcomes),
        done=sum(outcome.done for outcome in outcomes),
        rejected=dict(rejected.most_common()),
        seconds=sum(outcome.seconds for outcome in outcomes),
        worked=sum(outcome.worked for outcome in outcomes),
        facts={
            f"{outcome.title.rpartition(' ')[2]}: {name}": fact
            for outcome in outcomes
            for name, fact in {"images": f"{outcome.images:,}", **outcome.facts}.items()
        },
    )
