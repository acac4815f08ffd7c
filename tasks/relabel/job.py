"""A relabel run from its parameters to its version, in steps that a flow (or a script) calls in turn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmill.models.class_match import ClassMatch, match_classes
from labelmill.models.fast_forward import make_fast
from labelmill.models.teacher import load_teacher
from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, LabelMapMetadata
from labelmill.schemas.parameters import RelabelParameters, parse_input_size
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.relabel.calibrate import Calibration, calibrate
from labelmill.tasks.relabel.load import choose_resizer
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.relabel.shards import LabelMapJob, Shard, plan_shards
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelRun:
    """A prepared run: the job that its shards share, the shards, and what the version will say."""

    parameters: RelabelParameters
    job: LabelMapJob
    shards: tuple[Shard, ...]
    images_version: Version
    calibration: Calibration
    match: ClassMatch
    grid: tuple[int, int]

    @property
    def images(self) -> int:
        """Rows that the version will have."""
        return sum(len(shard) for shard in self.shards)


def prepare_run(parameters: RelabelParameters) -> RelabelRun:
    """Load the teacher, fit or find its temperature, match the classes and plan the shards.

    Raises NotInStore, BadInput or UnsupportedTeacher before any work when a parameter does not fit.
    """
    store = open_store(parameters.store)
    images = store.table(f"{parameters.dataset}.images")
    label_maps = store.table(f"{parameters.dataset}.label_maps")
    version = images.version(parameters.images_version)
    roots = _roots(parameters, version)
    teacher = load_teacher(parameters.teacher, weights=parameters.weights, classes=parameters.classes)
    settings = RelabelSettings(
        input_size=parse_input_size(parameters.input_size)
        if parameters.input_size
        else teacher.preprocessing.native_size,
        top_k=min(parameters.top_k, teacher.num_classes),
        batch_size=parameters.batch_size,
        max_pixels=parameters.max_pixels,
        precision=parameters.precision,
        resizer=choose_resizer(parameters.precision, teacher.preprocessing.interpolation),
        scaled_decoding=parameters.scaled_decoding,
    )
    grid = teacher.map_size(*settings.input_size)
    model = make_fast(teacher.model, precision=settings.precision, input_size=settings.input_size)
    workers = parameters.workers or os.cpu_count() or 1
    calibration = calibrate(
        teacher, settings, images=images, version=version, roots=roots, label_maps=label_maps,
        count=parameters.calibration_images, workers=workers, model=model,
    )  # fmt: skip
    listed = version.metadata.get("classes")
    match = match_classes(ClassList.model_validate(listed) if listed else None, teacher.classes)
    common = {
        "teacher": teacher.digest,
        "settings": settings.facts(),
        "engine": model.facts(),
        "temperature": calibration.temperature,
    }
    run = digest_json({"common": common, "images": version.sha256, "split": parameters.split})
    job = LabelMapJob(
        images=images, label_maps=label_maps, roots=roots, teacher=teacher, model=model, settings=settings,
        temperature=calibration.temperature, teacher_labels=match.teacher_ids, workers=workers, run=run,
    )  # fmt: skip
    shards = plan_shards(
        images, version, split=parameters.split, shard_size=parameters.shard_size, common=common,
        teacher_labels=match.teacher_ids,
    )  # fmt: skip
    label_maps.receipts.open_run(run)
    return RelabelRun(
        parameters=parameters, job=job, shards=tuple(shards), images_version=version, calibration=calibration,
        match=match, grid=grid,
    )  # fmt: skip


def _roots(parameters: RelabelParameters, version: Version) -> dict[str, Path]:
    recorded: dict[str, str] = version.metadata["roots"]
    if parameters.split is not None and parameters.split not in recorded:
        raise BadInput(f"split: expected one of {', '.join(sorted(recorded))}, got {parameters.split!r}")
    wanted = [parameters.split] if parameters.split else sorted(recorded)
    if parameters.image_root is not None and len(wanted) > 1:
        raise BadInput(f"image_root: the splits {', '.join(wanted)} have a folder each; name one with split")
    roots = {split: Path(parameters.image_root or recorded[split]) for split in wanted}
    for split, root in roots.items():
        if not root.is_dir():
            raise BadInput(
                f"images of split {split!r}: no such folder: {root}; when they are mounted elsewhere, "
                "say so with image_root"
            )
    return roots


def commit_run(run: RelabelRun, receipts: Sequence[Receipt]) -> Version:
    """Make the run's shards a version, in their order; return the latest as it is when it holds just these.

    Raises WorkFailed when not one image could be labelled.
    """
    done = sum(receipt.counts["done"] for receipt in receipts)
    if not done and any(receipt.retry for receipt in receipts):
        raise WorkFailed(
            f"none of {run.images} images could be read as they were ingested; nothing was committed. Are they still "
            "where they were? When they are mounted elsewhere, say so with image_root"
        )
    parts = tuple(receipt.part for receipt in receipts)
    facts = {**run.job.teacher.facts(), **run.job.settings.facts(), "engine": run.job.model.facts()}
    metadata = _metadata(run, facts).model_dump(mode="json")
    latest = run.job.label_maps.latest()
    if latest is not None and (latest.parts, latest.metadata) == (parts, metadata):
        run.job.label_maps.receipts.close_run(run.job.run)
        return latest
    version = run.job.label_maps.replace(
        parts,
        schema=LABEL_MAPS_SCHEMA,
        metadata=metadata,
        lineage=make_lineage(
            "relabel",
            run.parameters,
            inputs={run.job.images.name: run.images_version.number},
            teacher=facts,
        ),
    )
    run.job.label_maps.receipts.close_run(run.job.run)
    return version


def _metadata(run: RelabelRun, teacher_facts: dict[str, Any]) -> LabelMapMetadata:
    settings, match = run.job.settings, run.match
    return LabelMapMetadata(
        grid=run.grid,
        top_k=settings.top_k,
        input_size=settings.input_size,
        logit_step=settings.logit_step,
        num_classes=run.job.teacher.num_classes,
        classes=run.job.teacher.classes,
        temperature=run.job.temperature,
        absent_share=settings.absent_share,
        calibration=run.calibration.model_dump(mode="json"),
        label_match={
            "how": match.how,
            "matched": match.matched,
            "unmatched": match.unmatched,
            "ambiguous": match.ambiguous,
            "reason": match.reason,
        },
        teacher=teacher_facts,
    )
