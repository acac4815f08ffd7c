"""The flow that brings LSUN into a store, and out of its LMDB."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.ingest import describe_ingest, ingest_run, join_outcomes
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop

if TYPE_CHECKING:
    from labelmill.tasks.ingest.manifest import ManifestRun
    from labelmill.tasks.lsun.environments import LsunEnvironment
    from labelmill.tasks.lsun.export import ExportedValue, ExportTarget
    from labelmill.tasks.store.receipts import Receipt


@define_flow("ingest-lsun", IngestLsunParameters, run_name="ingest-lsun {dataset} from {source}")
def ingest_lsun(parameters: IngestLsunParameters) -> Outcome:
    """Ingest LSUN: an LMDB environment, such as bedroom_train_lmdb, or a folder of several; may export the images."""
    from labelmill.tasks.lsun.environments import find_environments

    splits = find_environments(parameters.source, parameters.split)
    several = sum(map(len, splits.values())) > 1
    outcomes = [
        _ingest_split(parameters.model_copy(update={"split": split}), environments, several=several)
        for split, environments in splits.items()
    ]
    return join_outcomes(outcomes, f"ingest-lsun {parameters.dataset}, splits {', '.join(splits)}")


def _ingest_split(
    parameters: IngestLsunParameters, environments: Sequence[LsunEnvironment], *, several: bool
) -> Outcome:
    from labelmill.tasks.ingest.job import IngestRun
    from labelmill.tasks.lsun.job import prepare_lsun

    started = time.monotonic()

    def check() -> None:
        for environment in environments:
            environment.check_unchanged()

    exported = None if parameters.out is None else _export(parameters, environments, several=several)
    check()
    prepared = prepare_lsun(parameters, environments, None if exported is None else [e.entry for e in exported])
    if isinstance(prepared, IngestRun):
        outcome = ingest_run(prepared, started, check=check)
    else:
        check()
        outcome = _commit_manifest(prepared, started)
    return outcome if exported is None else _add_export(outcome, parameters, exported)


def _commit_manifest(manifest: ManifestRun, started: float) -> Outcome:
    from labelmill.tasks.ingest.job import commit_ingest

    run = manifest.run
    meter = ProgressMeter("rows", sum(map(len, manifest.pieces)))
    receipts = {chunk.number: run.table.receipts.find(chunk.key, run=run.run) for chunk in run.chunks}
    of = f"{run.parameters.dataset} {run.parameters.split}"
    writing = {
        number: _write_piece.submit(of, number, untracked(manifest))  # several at once: compressing takes longest
        for number, receipt in receipts.items()
        if receipt is None
    }
    done: list[Receipt] = []
    for number, receipt in receipts.items():
        check_stop()
        done.append(receipt or writing[number].result())
        rows, rejected = len(manifest.pieces[number]), done[-1].counts["rejected"]
        meter.add(done=0 if receipt else rows, reused=rows if receipt else 0, rejected=rejected)
    worked = meter.finish().done
    version = commit_ingest(run, done)
    outcome = describe_ingest(run, version, worked, time.monotonic() - started)
    facts = {**outcome.facts, "digests": "none: nothing was read; sizes, formats and damage are not known"}
    return outcome.model_copy(update={"facts": facts})


@task(name="write-manifest", task_run_name="{of} chunk {number}", cache_policy=NO_CACHE)
def _write_piece(of: str, number: int, manifest: ManifestRun) -> Receipt:
    from labelmill.tasks.ingest.manifest import write_piece

    return write_piece(manifest, number)


def _export(
    parameters: IngestLsunParameters, environments: Sequence[LsunEnvironment], *, several: bool
) -> list[ExportedValue]:
    """Export the environments' values; below a folder with an environment's name where there are several."""
    from labelmill.tasks.lsun.export import ExportTarget, count_values
    from labelmill.tasks.written.file_tree import FileTree

    assert parameters.out is not None  # noqa: S101 - the caller has looked
    meter = ProgressMeter("files", sum(count_values(environment) for environment in environments))
    exported: list[ExportedValue] = []
    with FileTree(parameters.out) as tree:
        for environment in environments:
            folder = f"{environment.name}/" if several else ""
            target = ExportTarget(tree=tree, folder=folder, parameters=parameters)
            _export_environment(environment.name, untracked((environment, target, meter, exported)))
    meter.finish()
    return exported


@task(name="export-environment", task_run_name="export {name}", cache_policy=NO_CACHE)
def _export_environment(
    name: str, work: tuple[LsunEnvironment, ExportTarget, ProgressMeter, list[ExportedValue]]
) -> None:
    """Add the exported values to the last of `work`: Prefect would look through what a task returns."""
    from labelmill.tasks.lsun.export import export_values

    environment, target, meter, exported = work

    def on_batch(batch: Sequence[ExportedValue]) -> None:
        written, rejected = sum(e.written for e in batch), sum(e.entry.rejected is not None for e in batch)
        meter.add(done=written + rejected, reused=len(batch) - written - rejected, rejected=rejected)

    exported += export_values(environment, target, on_batch=on_batch)


def _add_export(outcome: Outcome, parameters: IngestLsunParameters, exported: Sequence[ExportedValue]) -> Outcome:
    written, without = sum(e.written for e in exported), sum(e.entry.rejected is not None for e in exported)
    kept = len(exported) - written - without
    fact = f"{written:,} written, {kept:,} as they were, {without:,} without a file, in {parameters.out}"
    return outcome.model_copy(update={"facts": {**outcome.facts, "files": fact}})
