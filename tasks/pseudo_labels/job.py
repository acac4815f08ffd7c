"""Pseudo labels from their parameters to their version, in steps that a flow calls in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from labelmill.models.class_match import ClassMatch, match_classes
from labelmill.models.teacher import Teacher
from labelmill.schemas.classes import read_classes
from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.parameters import PseudolabelParameters, parse_input_size
from labelmill.schemas.pseudo_labels import PSEUDO_LABELS_SCHEMA, PseudoLabelMetadata
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.pseudo_labels.open_predictor import open_predictor
from labelmill.tasks.pseudo_labels.predict import Predictor
from labelmill.tasks.pseudo_labels.preflight import refuse_other_table
from labelmill.tasks.pseudo_labels.settings import PredictionSettings
from labelmill.tasks.pseudo_labels.shard import build_rows, predict_rows
from labelmill.tasks.pseudo_labels.teachers import load_teachers
from labelmill.tasks.relabel.devices import choose_batch_size, choose_devices
from labelmill.tasks.relabel.shards import labels_of, plan_shards, read_rows
from labelmill.tasks.shards import RETRIED_REASONS, Shard, find_present_roots
from labelmill.tasks.store import Change, Table, open_store
from labelmill.tasks.store.receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudolabelRun:
    """A prepared run: images and where they lie, teachers, the shards, and the table to be.

    `run` is the mark of this run in the receipts.
    """

    parameters: PseudolabelParameters
    images: Table
    version: Version
    table: Table
    roots: dict[str, str]
    teachers: tuple[Teacher, ...]
    settings: PredictionSettings
    predictor: Predictor
    match: ClassMatch
    shards: tuple[Shard, ...]
    run: str

    @property
    def rows(self) -> int:
        """Images of all shards."""
        return sum(len(shard) for shard in self.shards)

    @property
    def teacher_names(self) -> str:
        """The teachers for people."""
        return " + ".join(teacher.name for teacher in self.teachers)


def prepare_pseudolabel(parameters: PseudolabelParameters) -> PseudolabelRun:
    """Load the teachers, match the classes and plan the shards; the caller closes the predictor.

    Raises NotInStore, BadInput or UnsupportedTeacher before any work when a parameter does not fit.
    """
    store = open_store(parameters.store)
    images, table = (store.table(f"{parameters.dataset}.{name}") for name in ("images", parameters.table))
    refuse_other_table(table)
    version = images.version(parameters.images_version)
    roots = find_present_roots(version, split=parameters.split, image_root=parameters.image_root)
    devices = choose_devices(parameters.device)
    teachers = load_teachers(parameters)
    settings = _settings(parameters, teachers, devices)
    match = match_classes(read_classes(version.metadata), teachers[0].classes)
    predictor = open_predictor(teachers, settings, devices=devices, workers=parameters.workers or os.cpu_count() or 1)
    try:
        shards = _plan(parameters, images, version, _decide(teachers, settings, predictor), match)
        run = digest_json([shard.key for shard in shards])
        table.receipts.open_run(run)
    except BaseException:
        predictor.close()
        raise
    return PseudolabelRun(
        parameters=parameters, images=images, version=version, table=table, roots=roots, teachers=teachers,
        settings=settings, predictor=predictor, match=match, shards=shards, run=run,
    )  # fmt: skip


def _settings(
    parameters: PseudolabelParameters, teachers: Sequence[Teacher], devices: tuple[str, ...]
) -> PredictionSettings:
    size = parse_input_size(parameters.input_size) if parameters.input_size else None
    for teacher in teachers if size else ():
        teacher.map_size(*(size or ()))
    return PredictionSettings(
        views=parameters.views,
        top_k=min(parameters.top_k, teachers[0].num_classes),
        batch_size=choose_batch_size(parameters.batch_size, devices),
        max_pixels=parameters.max_pixels,
        input_size=size,
        precision=parameters.precision,
    )


def _decide(teachers: Sequence[Teacher], settings: PredictionSettings, predictor: Predictor) -> dict[str, Any]:
    """Return what decides a shard's bytes besides its rows."""
    digests = [teacher.digest for teacher in teachers]  # in their order: sums are rounded in it
    return {"teachers": digests, "settings": settings.facts(), "engine": predictor.facts()}


def _plan(
    parameters: PseudolabelParameters, images: Table, version: Version, common: dict[str, Any], match: ClassMatch
) -> tuple[Shard, ...]:
    shards = tuple(
        plan_shards(
            images, version, split=parameters.split, shard_size=parameters.shard_size, common=common,
            teacher_labels=match.teacher_ids,
        )
    )  # fmt: skip
    if not shards:
        raise BadInput(f"{images.name}: no images of {parameters.split or 'any split'} in version {version.number}")
    return shards


def predict_shard(
    run: PseudolabelRun, shard: Shard, *, on_batch: Callable[[int, int], None] = lambda images, rejected: None
) -> Receipt:
    """Predict the images of a shard, write its part and its receipt. Every row of the shard becomes a row."""
    rows = read_rows(run.images, shard.part, shard.split).slice(shard.start, len(shard))
    results = predict_rows(run.predictor, rows, run.roots, on_batch=on_batch)
    done = sum(result is not None and not isinstance(result, RejectedImage) for result in results)
    receipt = Receipt(
        key=shard.key,
        run=run.run,
        part=run.table.write_part(build_rows(rows, results, labels_of(rows, run.match.teacher_ids)), key=shard.key),
        counts={"done": done, "rejected": len(rows) - done},
        retry=any(isinstance(result, RejectedImage) and result.reason in RETRIED_REASONS for result in results),
    )
    run.table.receipts.write(receipt)
    return receipt


def commit_pseudo_labels(run: PseudolabelRun, receipts: Sequence[Receipt]) -> Version:
    """Make the shards' parts a version, in their order; the latest stays when it holds just these.

    Raises WorkFailed when not one image could be read.
    """
    if not any(receipt.counts["done"] for receipt in receipts) and any(receipt.retry for receipt in receipts):
        raise WorkFailed(
            f"none of {run.rows} images could be read as they were ingested; nothing was committed. Are they still "
            "where they were? When they are mounted elsewhere, say so with image_root"
        )
    parts = tuple(receipt.part for receipt in receipts)
    teachers = tuple({**teacher.facts(), **_loading_facts(run, teacher)} for teacher in run.teachers)
    metadata = PseudoLabelMetadata(
        num_classes=run.teachers[0].num_classes,
        classes=run.teachers[0].classes,
        top_k=run.settings.top_k,
        views=run.settings.views,
        label_match=run.match.facts(),
        teachers=teachers,
    ).model_dump(mode="json")
    made_by = {"name": run.teacher_names, "teachers": list(teachers)}
    facts = {**made_by, **run.settings.facts(), "engine": run.predictor.facts()}

    def change(latest: Version | None) -> Change | None:
        same = latest is not None and (latest.parts, latest.metadata) == (parts, metadata)
        return None if same else Change(operation="replace", parts=parts, metadata=metadata)

    inputs = {run.images.name: run.version.number}
    lineage = make_lineage("pseudolabel", run.parameters, inputs=inputs, teacher=facts)
    version = run.table.commit(change, schema=PSEUDO_LABELS_SCHEMA, lineage=lineage)
    run.table.receipts.close_run(run.run)
    return version


def _loading_facts(run: PseudolabelRun, teacher: Teacher) -> dict[str, Any]:
    loading = run.settings.loading(teacher)
    return {"input_size": list(loading.size), "resizer": loading.resizer}
