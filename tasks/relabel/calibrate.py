"""Fit the temperature of the default pooling once per teacher, size and dataset, and keep it beside the table."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from labelmill.models.fast_forward import FastModel, make_fast
from labelmill.models.teacher import Teacher
from labelmill.models.temperature import fit_temperature
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import Status
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.relabel.encode import pool_whole
from labelmill.tasks.relabel.engine import label_images, use_one_core
from labelmill.tasks.relabel.load import ImageToLabel, load_resized, normalise
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.relabel.shards import RETRIED_REASONS, read_rows
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store.files import replace_file
from labelmill.tasks.store.table import Table

KEPT_SHARE = 0.9
"""A temperature is kept for later runs when at least so many of the images drawn could be read."""


class Calibration(BaseModel):
    """A fitted temperature and on what it was fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float
    images: int
    target: str
    native_size: tuple[int, int]


def calibrate(
    teacher: Teacher,
    settings: RelabelSettings,
    *,
    images: Table,
    version: Version,
    roots: dict[str, Path],
    label_maps: Table,
    count: int,
    workers: int,
    model: FastModel,
) -> Calibration:
    """Return the temperature for this teacher and size, fitted at the first run and read back at later ones.

    It makes the default pooled label of whole images match the classifier's own probabilities of the same images at
    the size it was trained for, where it is as sure as its training made it. No labels are used.

    Raises WorkFailed when none of the images drawn can be read.
    """
    arithmetic = {k: v for k, v in settings.facts().items() if k not in {"batch_size", "max_pixels", "numerics"}}
    key = digest_json({"teacher": teacher.digest, "settings": arithmetic, "count": count})
    path = label_maps.folder / "calibrations" / f"{key}.json"
    if path.is_file():
        return Calibration.model_validate_json(path.read_bytes())
    drawn = draw_images(images, version, roots, count)
    calibration = fit_on_images(teacher, settings, drawn, workers=workers, model=model)
    if calibration.images >= min(count, len(drawn)) * KEPT_SHARE:  # on fewer, it is good for this run alone
        replace_file(path, calibration.model_dump_json(indent=1).encode())
    return calibration


def draw_images(images: Table, version: Version, roots: dict[str, Path], count: int) -> list[ImageToLabel]:
    """Draw `count` images that are not rejected: those whose ids have the lowest sha256, the same at every run."""

    def candidates() -> Iterator[tuple[str, ImageToLabel]]:
        for part in version.parts:
            for row in read_rows(images, part, None).to_pylist():
                if row["status"] == Status.DONE and row["split"] in roots:
                    draw = hashlib.sha256(row["image_id"].encode()).hexdigest()
                    path = roots[row["split"]] / row["uri"]
                    yield draw, ImageToLabel(path=path, sha256=row["sha256"], bytes=row["bytes"])

    return [image for _, image in heapq.nsmallest(count, candidates(), key=lambda pair: pair[0])]


def fit_on_images(
    teacher: Teacher,
    settings: RelabelSettings,
    drawn: Sequence[ImageToLabel],
    *,
    workers: int,
    model: FastModel | None = None,
) -> Calibration:
    """Fit on the given images, leaving out those that cannot be read."""
    meter = ProgressMeter("passes to fit the temperature", 2 * len(drawn))
    labelled = label_images(
        teacher, drawn, settings, workers=workers, model=model, on_batch=lambda images, rejected: meter.add(done=images)
    )
    kept = [(image, r.map) for image, r in zip(drawn, labelled, strict=True) if r.map is not None]
    meter.add(done=len(drawn) - len(kept))
    targets = native_probabilities(
        teacher, [image for image, _ in kept], settings, workers=workers, on_image=lambda: meter.add(done=1)
    )
    meter.finish()
    pairs = [(m, target) for (_, m), target in zip(kept, targets, strict=True) if target is not None]
    if not pairs:
        reasons = sorted({f"{r.reason}: {r.detail}" for r in labelled if r.reason})
        elsewhere = any(r.reason in RETRIED_REASONS for r in labelled)
        hint = "; when the images are mounted elsewhere, say so with image_root" if elsewhere else ""
        raise WorkFailed(
            f"none of the {len(drawn)} images drawn to fit the temperature could be labelled; "
            f"{'; '.join(reasons[:3]) or 'all images were rejected when they were ingested'}{hint}"
        )
    logits = pool_whole(
        [m for m, _ in pairs],
        teacher.map_size(*settings.input_size),
        num_classes=teacher.num_classes,
        settings=settings,
    )
    return Calibration(
        temperature=round(fit_temperature(logits, torch.stack([target for _, target in pairs])), 4),
        images=len(pairs),
        target="the classifier's probabilities of whole images at its own size",
        native_size=teacher.preprocessing.native_size,
    )


def native_probabilities(
    teacher: Teacher,
    images: Sequence[ImageToLabel],
    settings: RelabelSettings,
    *,
    workers: int,
    on_image: Callable[[], None] = lambda: None,
) -> list[Tensor | None]:
    """Return (C,) float32 probabilities of each whole image at the size that the teacher was trained for.

    None for an image that cannot be read.
    """
    loading = settings.loading(teacher.preprocessing, teacher.preprocessing.native_size)
    classifier = make_native_classifier(teacher)

    def probabilities(image: ImageToLabel) -> Tensor | None:
        check_stop()
        use_one_core()
        on_image()
        try:
            pixels = load_resized(image, loading)
        except RejectedImage:  # counted where it is labelled; here it is only one of a sample
            return None
        with torch.inference_mode():
            return torch.softmax(classifier(normalise([pixels], teacher))[0], dim=0)

    with ThreadPoolExecutor(workers, thread_name_prefix="native") as threads:
        return list(threads.map(probabilities, images))


def make_native_classifier(teacher: Teacher) -> Callable[[Tensor], Tensor]:
    """Return the classifier for images of its own size, by its fast form where its head is linear: logits (B, C)."""
    if teacher.head != "linear":
        return teacher.classifier_logits
    dense = make_fast(teacher.model, input_size=teacher.preprocessing.native_size)
    return lambda images: dense(images).mean((2, 3))
