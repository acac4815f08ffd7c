"""Judge how well relabelled images agree with what is stored: bounds, figures, problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labelmill.models.map_agreement import MapAgreement

IMAGES_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What a sample must reach; measured with EfficientNet-Lite0 at 224 and 475, see docs/store.md.

    same_top, image_same_top: shares of cells, of the sample and of its worst image. logit_median: mean over the
    images, in logits. total_variation: mean over the images.
    """

    same_top: float
    image_same_top: float
    logit_median: float
    total_variation: float


FLOAT32 = Bounds(
    same_top=0.95,  # another resize library 98.9 %; the mildest mistake, another interpolation, at most 90.6 %
    image_same_top=0.75,  # the worst of 250 images with another resize library: 85.7 %
    logit_median=0.05,  # another resize library 0.013; another interpolation at least 0.10
    total_variation=0.015,  # another resize library 0.004; another interpolation at least 0.035
)
"""For maps computed in float32 then and now: only libraries and processors differ."""

REDUCED = Bounds(
    same_top=0.80,  # two ways of bfloat16 85.9 %; a wrong normalisation, order or axis at most 57 %
    image_same_top=0.5,  # the worst image between two ways of bfloat16: 72.4 %
    logit_median=0.25,  # two ways of bfloat16 0.15; a wrong normalisation, order or axis at least 0.60
    total_variation=0.08,  # two ways of bfloat16 0.038; a wrong normalisation, order or axis at least 0.18
)
"""For maps with bfloat16 on a side. Its noise hides another interpolation, so here the causes are tried as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A line of the agreement: a measure of the sample, its worst image, and what was expected, as text."""

    measure: str
    sample: str
    worst: str
    expected: str


def list_figures(agreement: MapAgreement, bounds: Bounds, *, classes_only: bool = False) -> list[Figure]:
    """Return the agreement as a small table."""
    figures = [
        Figure(
            measure="cells with the same top class",
            sample=format_share(agreement.same_top.mean()),
            worst=format_share(agreement.same_top.min()),
            expected=f"≥ {format_share(bounds.same_top)}, each ≥ {format_share(bounds.image_same_top)}",
        )
    ]
    if not classes_only:
        variation = agreement.total_variation
        figures += [
            Figure(
                measure="difference of logits, median",
                sample=f"{agreement.logit_median.nanmean():.3f}",
                worst=f"{_largest(agreement.logit_median):.3f}",
                expected=f"≤ {bounds.logit_median:g}",
            ),
            Figure(
                measure="difference of logits, largest",
                sample=f"{agreement.logit_largest.nanmean():.3f}",
                worst=f"{_largest(agreement.logit_largest):.3f}",
                expected="",
            ),
            Figure(
                measure="pooled labels, total variation",
                sample=f"{variation.mean():.4f}",
                worst=f"{variation.max():.4f}",
                expected=f"≤ {bounds.total_variation:g}",
            ),
        ]
    same = agreement.same_pooled.float().mean()
    return [*figures, Figure(measure="same pooled class", sample=format_share(same), worst="", expected="")]


def list_problems(
    agreement: MapAgreement, bounds: Bounds, image_ids: Sequence[str], *, classes_only: bool = False
) -> list[str]:
    """Return what falls short of the bounds, a line for each; `classes_only` leaves numbers out."""
    problems = []
    if not (share := float(agreement.same_top.mean())) >= bounds.same_top:
        problems.append(
            f"cells with the same top class: {format_share(share)}, expected {format_share(bounds.same_top)} or more"
        )
    if bad := list_disagreeing(agreement, bounds):
        names = ", ".join(image_ids[place] for place in bad[:IMAGES_NAMED])
        problems.append(
            f"{len(bad)} of {len(image_ids)} images agree in less than {format_share(bounds.image_same_top)} of their "
            f"cells, the worst in {format_share(agreement.same_top.min())}: {names}"
        )
    if classes_only:
        return problems
    if not (apart := float(agreement.logit_median.nanmean())) <= bounds.logit_median:
        problems.append(f"logits: they differ by {apart:.3f} (median), expected {bounds.logit_median:g} or less")
    if not (varies := float(agreement.total_variation.mean())) <= bounds.total_variation:
        problems.append(f"pooled labels: total variation {varies:.4f}, expected {bounds.total_variation:g} or less")
    return problems


def list_disagreeing(agreement: MapAgreement, bounds: Bounds) -> list[int]:
    """Return the places of the images below the bound of a single image, the worst first."""
    order = agreement.same_top.argsort(stable=True).tolist()
    return [place for place in order if float(agreement.same_top[place]) < bounds.image_same_top]


def format_share(share: float | Tensor) -> str:
    """Return a share as a percentage."""
    return f"{100 * float(share):.1f} %"


def _largest(values: Tensor) -> Tensor:
    known = values[~values.isnan()]
    return known.max() if len(known) else torch.tensor(torch.nan)
