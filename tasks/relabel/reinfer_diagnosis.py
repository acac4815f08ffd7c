"""Say why stored label maps do not agree with their teacher: name the mistake under which they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelmill.models.map_agreement import MapAgreement
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.reinfer_causes import AS_RECORDED, Cause, Ids, list_views, rank_causes
from labelmill.tasks.relabel.reinfer_teacher import RecordedTeacher
from labelmill.tasks.relabel.reinfer_verdict import Bounds, format_share, list_disagreeing

CAUSE_IMAGES_MAX = 16
"""At 7x7 these are 784 cells, enough to tell causes apart; each image runs once for each of some 18 causes."""

CLEARLY_BETTER = 0.02
"""A cause must agree in so many more of the cells: by any cause that was tried, right maps in bfloat16 lose more."""

ALIKE = 0.01
"""Causes this near to the best one are named beside it: ImageNet's and CLIP's normalisations are nearly the same."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Suspects:
    """The images that were relabelled, what is stored of them, and how well it agrees.

    stored_top: for each image (H*W,) the top class ids as stored.
    """

    files: Sequence[ImageToLabel]
    stored_top: Sequence[Ids]
    agreement: MapAgreement


def explain(recorded: RecordedTeacher, suspects: Suspects, bounds: Bounds, workers: int) -> str:
    """Say under which mistake maps that do not agree do agree, or that none explains them."""
    chosen = _choose(suspects, bounds)
    as_recorded = _share(suspects, chosen)
    mistakes = _rank(recorded, suspects, chosen, workers)
    if _is_better(mistakes[0], as_recorded):
        return _say_best(mistakes, as_recorded, bounds)
    if as_recorded >= bounds.same_top:
        return "the top classes agree and the numbers do not: another scale, centring or absent mean of the logits"
    return (
        f"none of {len(mistakes)} likely causes agrees better than as recorded ({format_share(as_recorded)} of cells; "
        f"the best, {mistakes[0].said}: {format_share(mistakes[0].same_top)}): the maps may come from other weights"
    )


def find_better(recorded: RecordedTeacher, suspects: Suspects, bounds: Bounds, workers: int) -> str | None:
    """Return the mistake under which maps agree clearly better than as recorded, None when there is none."""
    chosen = _choose(suspects, bounds)
    as_recorded = _share(suspects, chosen)
    mistakes = _rank(recorded, suspects, chosen, workers)
    return _say_best(mistakes, as_recorded, bounds) if _is_better(mistakes[0], as_recorded) else None


def _choose(suspects: Suspects, bounds: Bounds) -> list[int]:
    """Return the places of some images, of those that disagree on their own when there are such."""
    places = list_disagreeing(suspects.agreement, bounds) or list(range(len(suspects.files)))
    count = min(CAUSE_IMAGES_MAX, len(places))
    return [places[n * len(places) // count] for n in range(count)]


def _share(suspects: Suspects, chosen: Sequence[int]) -> float:
    return float(suspects.agreement.same_top[list(chosen)].mean())


def _rank(recorded: RecordedTeacher, suspects: Suspects, chosen: Sequence[int], workers: int) -> list[Cause]:
    causes = rank_causes(
        [suspects.files[place] for place in chosen],
        [suspects.stored_top[place] for place in chosen],
        list_views(recorded.teacher.preprocessing, recorded.own),
        model=recorded.model,
        input_size=recorded.settings.input_size,
        max_pixels=recorded.settings.max_pixels,
        workers=workers,
    )
    return [cause for cause in causes if cause.said != AS_RECORDED]


def _is_better(cause: Cause, as_recorded: float) -> bool:
    return cause.same_top >= as_recorded + CLEARLY_BETTER


def _say_best(mistakes: Sequence[Cause], as_recorded: float, bounds: Bounds) -> str:
    best = mistakes[0]
    alike = [cause for cause in mistakes[1:3] if cause.same_top > best.same_top - ALIKE]
    how = "agree" if best.same_top >= bounds.same_top else "agree best, yet not well,"
    beside = "".join(f"; nearly as well with {c.said}: {format_share(c.same_top)}" for c in alike)
    return (
        f"stored maps {how} with {best.said}: {format_share(best.same_top)} of cells "
        f"against {format_share(as_recorded)} as recorded{beside}"
    )
