"""Check label maps against their teacher: relabel some images, compare, and name the cause when they do not agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from labelmill.models.label_encoding import EncodedMap, gather_maps
from labelmill.models.label_pooling import LabelMapBatch
from labelmill.models.map_agreement import compare_maps, list_class_ids
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.schemas.label_maps import LabelMapMetadata
from labelmill.schemas.versions import Version
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.relabel.engine import label_images
from labelmill.tasks.relabel.reinfer_diagnosis import Suspects, explain, find_better
from labelmill.tasks.relabel.reinfer_sample import Sample, StoredImage, draw_sample
from labelmill.tasks.relabel.reinfer_teacher import RecordedTeacher, load_recorded_teacher
from labelmill.tasks.relabel.reinfer_verdict import FLOAT32, REDUCED, Figure, list_figures, list_problems
from labelmill.tasks.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Reinference:
    """What relabelling a sample showed.

    Of `done` images that have a map `drawn` were drawn and `compared` relabelled; `left_out` counts the others by
    reason. `same_bytes` of them gave the stored map to the byte. `diagnosis` says what explains the problems.
    """

    version: Version
    teacher: str
    precision: str
    done: int
    drawn: int
    compared: int
    same_bytes: int
    left_out: dict[str, int]
    figures: tuple[Figure, ...]
    problems: tuple[str, ...]
    diagnosis: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    figures: tuple[Figure, ...] = ()
    problems: tuple[str, ...] = ()
    diagnosis: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    stored: StoredImage
    again: EncodedMap


def reinfer_version(
    store: Store,
    table: str,
    number: int | None = None,
    *,
    count: int,
    weights: str | None = None,
    image_root: str | Path | None = None,
    workers: int,
) -> Reinference:
    """Relabel `count` images of a version, the latest by default, with its teacher and compare with what is stored.

    `weights` takes the place of the recorded weights, `image_root` that of the images' folder.

    Raises BadInput when the table holds no label maps, records no teacher that can be loaded, or `count` is below 1.
    """
    if count < 1:
        raise BadInput(f"reinfer: expected 1 image or more, got {count}")
    version, metadata = _open_version(store, table, number)
    recorded = load_recorded_teacher(version, metadata, weights=weights)
    sample = draw_sample(store, version, metadata, count, image_root=image_root)
    misfit = _find_misfit(recorded, metadata, sample)
    pairs, left_out = ([], Counter[str]()) if misfit else _relabel(recorded, sample, workers)
    verdict = _judge(recorded, metadata, pairs, workers) if pairs else _Verdict()
    unread = [] if misfit else _unread_problems(left_out, len(pairs))
    return Reinference(
        version=version,
        teacher=recorded.teacher.name,
        precision=str(recorded.model.facts()["precision"]),
        done=sample.done,
        drawn=len(sample.images),
        compared=len(pairs),
        same_bytes=sum(_same_bytes(pair, rest=metadata.outside_known) for pair in pairs),
        left_out=dict(left_out),
        figures=verdict.figures,
        problems=(*recorded.problems, *misfit, *unread, *verdict.problems),
        diagnosis=verdict.diagnosis,
        notes=recorded.notes,
    )


def _open_version(store: Store, table: str, number: int | None) -> tuple[Version, LabelMapMetadata]:
    version = store.table(table).version(number)
    return version, LabelMapMetadata.read(table, version.metadata)


def _find_misfit(recorded: RecordedTeacher, metadata: LabelMapMetadata, sample: Sample) -> list[str]:
    """Return why there is nothing to compare, if so."""
    if (now := recorded.teacher.num_classes) != metadata.num_classes:
        return [f"another teacher: recorded {metadata.num_classes} classes, these weights have {now}"]
    if recorded.grid != metadata.grid:
        stored, given = ("x".join(map(str, grid)) for grid in (metadata.grid, recorded.grid))
        exchanged = "; rows and columns look exchanged" if recorded.grid == metadata.grid[::-1] else ""
        return [f"grid: recorded {stored} cells, the teacher gives {given}{exchanged}"]
    return [] if sample.images else ["no image has a map: there is nothing to relabel"]


def _relabel(recorded: RecordedTeacher, sample: Sample, workers: int) -> tuple[list[_Pair], Counter[str]]:
    meter = ProgressMeter("images relabelled", len(sample.images))
    labelled = label_images(
        recorded.teacher,
        [image.file for image in sample.images],
        recorded.settings,
        workers=workers,
        model=recorded.model,
        on_batch=lambda images, rejected: meter.add(done=images, rejected=rejected),
    )
    meter.finish()
    both = list(zip(sample.images, labelled, strict=True))
    pairs = [_Pair(stored=image, again=result.map) for image, result in both if result.map is not None]
    return pairs, Counter(str(result.reason) for _, result in both if result.map is None)


def _unread_problems(left_out: Counter[str], compared: int) -> list[str]:
    problems = []
    if left_out[Reason.NOT_FINITE]:
        problems.append(f"{left_out[Reason.NOT_FINITE]} images that have a map give no finite logits now")
    if not compared:
        problems.append(
            "none of the images drawn could be relabelled; when they are mounted elsewhere, say so with --image-root"
        )
    return problems


def _judge(recorded: RecordedTeacher, metadata: LabelMapMetadata, pairs: Sequence[_Pair], workers: int) -> _Verdict:
    stored, again = (_gather(maps, metadata) for maps in _split(pairs))
    agreement = compare_maps(stored, again, absent_share=metadata.absent_share, temperature=metadata.temperature)
    bounds = FLOAT32 if recorded.float32 else REDUCED
    ids = [pair.stored.image_id for pair in pairs]
    # Imported logits still hold the mean outside the top-k, unknown in each cell: their numbers compare with nothing.
    classes_only = metadata.logits != "centred"
    figures = list_figures(agreement, bounds, classes_only=classes_only)
    problems = list_problems(agreement, bounds, ids, classes_only=classes_only)
    exact = not problems and not list_problems(agreement, FLOAT32, ids, classes_only=classes_only)
    if exact or recorded.is_other:
        return _Verdict(figures=tuple(figures), problems=tuple(problems))
    suspects = Suspects(
        files=[pair.stored.file for pair in pairs],
        stored_top=list(list_class_ids(stored)[..., 0].numpy()),
        agreement=agreement,
    )
    if problems:
        diagnosis = explain(recorded, suspects, bounds, workers)
        return _Verdict(figures=tuple(figures), problems=tuple(problems), diagnosis=diagnosis)
    better = find_better(recorded, suspects, bounds, workers)
    return _Verdict(figures=tuple(figures), problems=(better,) if better else ())


def _split(pairs: Sequence[_Pair]) -> tuple[list[EncodedMap], list[EncodedMap]]:
    return [pair.stored.map for pair in pairs], [pair.again for pair in pairs]


def _gather(maps: Sequence[EncodedMap], metadata: LabelMapMetadata) -> LabelMapBatch:
    return gather_maps(
        maps, grid=metadata.grid, top_k=metadata.top_k, step=metadata.logit_step, num_classes=metadata.num_classes
    )


def _same_bytes(pair: _Pair, *, rest: bool) -> bool:
    names = [field.name for field in fields(EncodedMap) if rest or field.name != "rest"]
    return all(np.array_equal(getattr(pair.stored.map, name), getattr(pair.again, name)) for name in names)
