"""Fit the temperature of the default pooling once per teacher, size and dataset, and keep it beside the table."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labelmill.models.teacher import Teacher
from labelmill.models.temperature import fit_temperature
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import Status
from labelmill.schemas.locations import join_location
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.relabel.encode import Labelled, pool_whole
from labelmill.tasks.relabel.engine import Engine
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.movement import Movement, measure_movement
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.relabel.shards import read_rows
from labelmill.tasks.shards import RETRIED_REASONS
from labelmill.tasks.store.place import Files
from labelmill.tasks.store.table import Table


class Calibration(BaseModel):
    """A fitted temperature and on what it was fitted; `movement` is None for labels in fp32.

    `lost` says that images drawn for it could not be read as they were ingested: they may come back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float
    images: int
    lost: bool = Field(False, exclude=True)
    target: str
    native_size: tuple[int, int]
    movement: Movement | None = None


def calibrate(
    engine: Engine,
    teacher: Teacher,
    settings: RelabelSettings,
    *,
    images: Table,
    version: Version,
    roots: Mapping[str, str | Path],
    label_maps: Table,
    count: int,
    exact: Callable[[], Engine] | None = None,
) -> Calibration:
    """Return the temperature for this teacher and size, fitted at the first run and read back at later ones.

    It makes the default pooled label of whole images match the classifier's own probabilities of the same images at
    the size it was trained for, where it is as sure as its training made it. No labels are used. With `exact`, which
    opens an engine of the same teacher in fp32, the same images tell how far this engine's labels are from it.

    Raises WorkFailed when none of the images drawn can be read.
    """
    arithmetic = {k: v for k, v in settings.facts().items() if k not in {"batch_size", "max_pixels", "numerics"}}
    key = digest_json({"teacher": teacher.digest, "settings": arithmetic, "count": count})
    path = f"calibrations/{key}.json"
    if kept := _read_kept(label_maps.files, path):
        return kept
    drawn = draw_images(images, version, roots, count)
    calibration = fit_on_images(engine, teacher, settings, drawn, exact=exact)
    if calibration.lost:  # with images missing that may come back, it is good for this run alone
        return calibration
    return _keep(label_maps.files, path, calibration)


def _read_kept(files: Files, path: str) -> Calibration | None:
    for _, kept in files.read_all([path]):
        try:
            return Calibration.model_validate_json(kept)
        except ValidationError:  # damaged: it is fitted anew
            break
    return None


def _keep(files: Files, path: str, calibration: Calibration) -> Calibration:
    """Keep a calibration and return it, or the one of another machine that was first: shares of a run have one."""
    data = calibration.model_dump_json(indent=1).encode()
    try:
        files.create(path, data)
    except FileExistsError:
        if first := _read_kept(files, path):
            return first
        files.replace(path, data)
    return calibration


def draw_images(images: Table, version: Version, roots: Mapping[str, str | Path], count: int) -> list[ImageToLabel]:
    """Draw `count` images that are not rejected: those whose ids have the lowest sha256, the same at every run."""

    def candidates() -> Iterator[tuple[str, ImageToLabel]]:
        for part in version.parts:
            for row in read_rows(images, part, None).to_pylist():
                if row["status"] == Status.DONE and row["split"] in roots:
                    draw = hashlib.sha256(row["image_id"].encode()).hexdigest()
                    path = join_location(roots[row["split"]], row["uri"])
                    yield draw, ImageToLabel(path=path, sha256=row["sha256"], bytes=row["bytes"])

    return [image for _, image in heapq.nsmallest(count, candidates(), key=lambda pair: pair[0])]


def fit_on_images(
    engine: Engine,
    teacher: Teacher,
    settings: RelabelSettings,
    drawn: Sequence[ImageToLabel],
    *,
    exact: Callable[[], Engine] | None = None,
) -> Calibration:
    """Fit on the given images, leaving out those that cannot be read."""
    meter = ProgressMeter("passes to fit the temperature", (3 if exact else 2) * len(drawn))

    def on_batch(images: int, rejected: int) -> None:
        meter.add(done=images)

    labelled = engine.label(drawn, on_batch=on_batch)
    kept = [(image, r.map) for image, r in zip(drawn, labelled, strict=True) if r.map is not None]
    meter.add(done=len(drawn) - len(kept))
    targets = engine.native_probabilities([image for image, _ in kept], on_batch=on_batch)
    triples = [(image, m, target) for (image, m), target in zip(kept, targets, strict=True) if target is not None]
    if not triples:
        raise _none_labelled(drawn, labelled)
    maps = [m for _, m, _ in triples]
    logits = pool_whole(
        maps, teacher.map_size(*settings.input_size), num_classes=teacher.num_classes, settings=settings
    )
    temperature = round(fit_temperature(logits, torch.stack([target for *_, target in triples])), 4)
    movement = None
    if exact is not None:
        with closing(exact()) as engine_in_fp32:
            again = engine_in_fp32.label([image for image, *_ in triples], on_batch=on_batch)
        movement = measure_movement(maps, [r.map for r in again], teacher, settings, temperature)
    meter.finish()
    return Calibration(
        temperature=temperature,
        images=len(triples),
        lost=len(triples) < len(kept) or any(r.reason in RETRIED_REASONS for r in labelled),
        target="the classifier's probabilities of whole images at its own size",
        native_size=teacher.preprocessing.native_size,
        movement=movement,
    )


def _none_labelled(drawn: Sequence[ImageToLabel], labelled: Sequence[Labelled]) -> WorkFailed:
    reasons = sorted({f"{r.reason}: {r.detail}" for r in labelled if r.reason})
    elsewhere = any(r.reason in RETRIED_REASONS for r in labelled)
    hint = "; when the images are mounted elsewhere, say so with image_root" if elsewhere else ""
    return WorkFailed(
        f"none of the {len(drawn)} images drawn to fit the temperature could be labelled; "
        f"{'; '.join(reasons[:3]) or 'all images were rejected when they were ingested'}{hint}"
    )
