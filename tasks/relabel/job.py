"""A relabel run from its parameters to its version, in steps that a flow (or a script) calls in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from labelmill.models.class_match import ClassMatch, match_classes
from labelmill.models.teacher import Teacher, load_teacher
from labelmill.schemas.classes import read_classes
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.label_maps import LabelMapMetadata
from labelmill.schemas.parameters import RelabelParameters, parse_input_size
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.commit_label_maps import commit_label_maps
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.relabel.calibrate import Calibration, calibrate
from labelmill.tasks.relabel.devices import choose_batch_size, choose_devices
from labelmill.tasks.relabel.engine import Engine
from labelmill.tasks.relabel.engine_process import TeacherSource
from labelmill.tasks.relabel.load import choose_resizer
from labelmill.tasks.relabel.open_engine import open_engine
from labelmill.tasks.relabel.remote_shard import RemoteJob
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.relabel.shards import LabelMapJob, plan_shards
from labelmill.tasks.relabel.share import gather_receipts, take_share
from labelmill.tasks.shards import Shard, find_present_roots
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelRun:
    """A prepared run: the job that its shards share, the shards, and what the version will say.

    `mine` are those of the shards that this process is to label.
    """

    parameters: RelabelParameters
    job: LabelMapJob
    shards: tuple[Shard, ...]
    mine: tuple[Shard, ...]
    images_version: Version
    calibration: Calibration
    match: ClassMatch
    grid: tuple[int, int]

    @property
    def images(self) -> int:
        """Images of the shards that are to be labelled here."""
        return sum(len(shard) for shard in self.mine)

    def remote(self, *, workers: int) -> RemoteJob:
        """Return the job as other processes take it; each runs its engine with `workers` threads."""
        job, given = self.job, self.parameters
        return RemoteJob(
            store=given.store, images=job.images.name, label_maps=job.label_maps.name, roots=job.roots,
            source=TeacherSource(name=given.teacher, weights=given.weights, classes=given.classes),
            settings=job.settings, device=given.device, workers=workers, temperature=job.temperature,
            teacher_labels=job.teacher_labels, run=job.run, digest=job.teacher.digest, engine=job.engine.facts(),
        )  # fmt: skip


def prepare_run(parameters: RelabelParameters) -> RelabelRun:
    """Load the teacher, open its engine, fit or find its temperature, match the classes and plan the shards.

    The caller closes the engine, `job.engine`. Raises NotInStore, BadInput or UnsupportedTeacher before any work when
    a parameter does not fit.
    """
    images = open_store(parameters.store).table(f"{parameters.dataset}.images")
    version = images.version(parameters.images_version)
    roots = find_present_roots(version, split=parameters.split, image_root=parameters.image_root)
    devices = choose_devices(parameters.device)
    source = TeacherSource(name=parameters.teacher, weights=parameters.weights, classes=parameters.classes)
    teacher = load_teacher(source.name, weights=source.weights, classes=source.classes)
    settings = _settings(parameters, teacher, devices)
    grid = teacher.map_size(*settings.input_size)
    workers = parameters.workers or os.cpu_count() or 1
    engine = open_engine(teacher, settings, devices=devices, workers=workers, source=source)
    in_fp32 = replace(settings, precision="fp32", resizer="pillow", scaled_decoding=False)
    exact = partial(open_engine, teacher, in_fp32, devices=devices[:1], workers=workers, source=source)
    try:
        return _prepare(
            parameters, engine, teacher, settings, images=images, version=version, roots=roots, grid=grid,
            exact=None if in_fp32 == settings else exact,
        )  # fmt: skip
    except BaseException:
        engine.close()
        raise


def _settings(parameters: RelabelParameters, teacher: Teacher, devices: tuple[str, ...]) -> RelabelSettings:
    return RelabelSettings(
        input_size=parse_input_size(parameters.input_size)
        if parameters.input_size
        else teacher.preprocessing.native_size,
        top_k=min(parameters.top_k, teacher.num_classes),
        batch_size=choose_batch_size(parameters.batch_size, devices),
        max_pixels=parameters.max_pixels,
        precision=parameters.precision,
        resizer=choose_resizer(parameters.precision, teacher.preprocessing.interpolation),
        scaled_decoding=parameters.scaled_decoding,
    )


def _prepare(
    parameters: RelabelParameters,
    engine: Engine,
    teacher: Teacher,
    settings: RelabelSettings,
    *,
    images: Table,
    version: Version,
    roots: dict[str, str],
    grid: tuple[int, int],
    exact: Callable[[], Engine] | None,
) -> RelabelRun:
    label_maps = open_store(parameters.store).table(f"{parameters.dataset}.label_maps")
    calibration = calibrate(
        engine, teacher, settings, images=images, version=version, roots=roots, label_maps=label_maps,
        count=parameters.calibration_images, exact=exact,
    )  # fmt: skip
    match = match_classes(read_classes(version.metadata), teacher.classes)
    common = {
        "teacher": teacher.digest,
        "settings": settings.facts(),
        "engine": engine.facts(),
        "temperature": calibration.temperature,
    }
    run = digest_json({"common": common, "images": version.sha256, "split": parameters.split})
    job = LabelMapJob(
        images=images, label_maps=label_maps, roots=roots, teacher=teacher, engine=engine, settings=settings,
        temperature=calibration.temperature, teacher_labels=match.teacher_ids, run=run,
    )  # fmt: skip
    planned = plan_shards(
        images, version, split=parameters.split, shard_size=parameters.shard_size, common=common,
        teacher_labels=match.teacher_ids,
    )  # fmt: skip
    shards = tuple(planned)
    label_maps.receipts.open_run(run)
    return RelabelRun(
        parameters=parameters, job=job, shards=shards, mine=take_share(shards, parameters.share),
        images_version=version, calibration=calibration, match=match, grid=grid,
    )  # fmt: skip


def commit_run(run: RelabelRun, mine: Sequence[Receipt]) -> Version | None:
    """Make the run's shards a version, in their order, given the receipts of those that were labelled here.

    Returns the latest as it is when it holds just these, None while other shares of the run are not done. Raises
    WorkFailed when not one image could be labelled.
    """
    done = sum(receipt.counts["done"] for receipt in mine)
    if not done and any(receipt.retry for receipt in mine):
        raise WorkFailed(
            f"none of {run.images} images could be read as they were ingested; nothing was committed. Are they still "
            "where they were? When they are mounted elsewhere, say so with image_root"
        )
    receipts = gather_receipts(run.shards, mine, run.job.label_maps.receipts, run=run.job.run)
    if receipts is None:
        return None
    facts = {**run.job.teacher.facts(), **run.job.settings.facts(), "engine": run.job.engine.facts()}
    inputs = {run.job.images.name: run.images_version.number}
    parameters = run.parameters.model_copy(update={"share": None})  # the version holds all
    return commit_label_maps(
        run.job.label_maps,
        receipts,
        metadata=_metadata(run, facts),
        lineage=make_lineage("relabel", parameters, inputs=inputs, teacher=facts),
        run=run.job.run,
    )


def _metadata(run: RelabelRun, teacher_facts: dict[str, Any]) -> LabelMapMetadata:
    settings = run.job.settings
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
        label_match=run.match.facts(),
        teacher=teacher_facts,
    )
