"""Flows that import and export label maps as files, in the layout of ReLabel's authors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import ExportLabelMapsParameters, ImportLabelMapsParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import open_store
from labelmill.tasks.summarise import count_agreement, count_statuses

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.label_map_files.export_job import ExportRun, ExportShard
    from labelmill.tasks.label_map_files.export_shard import Exported
    from labelmill.tasks.label_map_files.import_job import ImportRun
    from labelmill.tasks.shards import Shard
    from labelmill.tasks.store.receipts import Receipt


@define_flow("import-label-maps", ImportLabelMapsParameters, run_name="import-label-maps {dataset} from {source}")
def import_label_maps(parameters: ImportLabelMapsParameters) -> Outcome:
    """Import the label maps of ReLabel's authors: a .pt file for each image, in a tree that mirrors the images."""
    from labelmill.tasks.label_map_files.import_job import commit_import, prepare_import

    run = prepare_import(parameters)
    started = time.monotonic()
    meter = ProgressMeter("maps", run.images)
    receipts = []
    for shard in run.shards:
        check_stop()
        receipt = run.job.label_maps.receipts.find(shard.key, run=run.job.run)
        if receipt is None:
            receipt = _import_shard(parameters.dataset, shard.number, untracked((run, shard, meter)))
        else:
            meter.add(reused=len(shard), rejected=receipt.counts["rejected"])
        receipts.append(receipt)
    worked = meter.finish().done
    version = commit_import(run, receipts)
    return _describe_import(run, version, worked, time.monotonic() - started)


@task(name="import-shard", task_run_name="{of} shard {number}", cache_policy=NO_CACHE)
def _import_shard(of: str, number: int, work: tuple[ImportRun, Shard, ProgressMeter]) -> Receipt:
    from labelmill.tasks.label_map_files.import_shard import import_shard

    run, shard, meter = work
    return import_shard(run.job, shard, on_batch=lambda images, rejected: meter.add(done=images, rejected=rejected))


def _describe_import(run: ImportRun, version: Version, worked: int, seconds: float) -> Outcome:
    store = open_store(run.parameters.store)
    done, rejected = count_statuses(store, version.table, version.number)
    same, compared = count_agreement(store, version.table, version.number)
    top_k, height, width = run.job.meaning.shape
    example = f", for example {run.unmatched[0]}" if run.unmatched else ""
    return Outcome(
        title=f"import label maps of {run.parameters.dataset} from {run.job.source}",
        table=version.table,
        version=version.number,
        images=version.rows,
        done=done,
        rejected=rejected,
        seconds=seconds,
        worked=worked,
        facts={
            "files without an image": f"{len(run.unmatched):,} of {len(run.job.files):,}{example}",
            "teacher": f"{run.parameters.teacher}, as you named it",
            "map": f"{height}x{width} cells, top {top_k} of {run.job.meaning.num_classes} classes, "
            f"{sum(p.bytes for p in version.parts) / max(done, 1):,.0f} bytes an image",
            "pooled class is the label": f"{same / compared:.1%} of {compared}"
            if compared
            else f"not compared: {run.match.reason or 'no image has a label'}",
        },
    )


@define_flow("export-label-maps", ExportLabelMapsParameters, run_name="export-label-maps {table} to {out}")
def export_label_maps(parameters: ExportLabelMapsParameters) -> Outcome:
    """Export label maps in the layout of ReLabel's authors: a .pt file for each image, in the tree of the images."""
    from labelmill.tasks.label_map_files.export_job import prepare_export
    from labelmill.tasks.label_map_files.export_shard import Exported

    run = prepare_export(parameters)
    started = time.monotonic()
    meter = ProgressMeter("files", run.files)
    exported = Exported()
    for shard in run.shards:
        check_stop()
        if shard.files:
            exported += _export_shard(parameters.table, shard.number, untracked((run, shard, meter)))
    meter.finish()
    return _describe_export(run, exported, time.monotonic() - started)


@task(name="export-shard", task_run_name="{of} shard {number}", cache_policy=NO_CACHE)
def _export_shard(of: str, number: int, work: tuple[ExportRun, ExportShard, ProgressMeter]) -> Exported:
    from labelmill.tasks.label_map_files.export_shard import export_shard

    run, shard, meter = work
    return export_shard(
        run, shard, on_batch=lambda batch: meter.add(done=batch.written + batch.replaced, reused=batch.kept)
    )


def _describe_export(run: ExportRun, exported: Exported, seconds: float) -> Outcome:
    split = run.parameters.split
    done, rejected = count_statuses(open_store(run.parameters.store), run.table.name, run.version.number, split)
    top_k, (height, width) = run.metadata.top_k, run.metadata.grid
    axes = f"{width}, {height}" if run.parameters.transposed else f"{height}, {width}"
    return Outcome(
        title=f"export {run.table.name} to {run.out}",
        table=run.table.name,
        version=run.version.number,
        images=done + sum(rejected.values()),
        done=done,
        rejected=rejected,
        seconds=seconds,
        worked=exported.written + exported.replaced,
        facts={
            "files": f"{exported.written:,} written, {exported.replaced:,} replaced, {exported.kept:,} as they were",
            "tensor": f"float32 [2, {top_k}, {axes}]: {run.metadata.logits.replace('_', ' ')} logits, class ids",
        },
    )
