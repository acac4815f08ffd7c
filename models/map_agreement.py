"""How well two label maps of the same images agree, cell by cell and as pooled labels of crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labelmill.models.label_pooling import LabelMapBatch, pool_label_maps

CROPS = (
    (0.0, 0.0, 1.0, 1.0),
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.25, 0.25, 0.75, 0.75),
    (0.1, 0.3, 0.9, 0.6),
)
"""Boxes x1 y1 x2 y2 in [0, 1] whose labels are compared; the whole image first. Together they tell x from y."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MapAgreement:
    """What two maps of each of B images have in common; logits in their own unit.

    same_top: (B,) float32, share of cells with the same top class. logit_median, logit_largest: (B,) float32,
    absolute difference of the centred logits of classes that a cell lists in both maps; NaN where there are none.
    total_variation: (B,) float32, between the pooled labels, mean over `CROPS`. same_pooled: (B,) bool, whether the
    pooled labels of the whole image have the same likeliest class.
    """

    same_top: Tensor
    logit_median: Tensor
    logit_largest: Tensor
    total_variation: Tensor
    same_pooled: Tensor


def compare_maps(one: LabelMapBatch, other: LabelMapBatch, *, absent_share: float, temperature: float) -> MapAgreement:
    """Compare maps of the same B images, of equal grid and k; crops are pooled by the default mode."""
    ids, other_ids = list_class_ids(one), list_class_ids(other)
    shared = ids[..., :, None] == other_ids[..., None, :]  # (B, H*W, k, k)
    apart = (one.logits.flatten(1, 2)[..., :, None] - other.logits.flatten(1, 2)[..., None, :]).abs()
    differences = [values[where] for values, where in zip(apart, shared, strict=True)]
    labels, other_labels = (
        torch.stack([_pool(maps, crop, absent_share=absent_share, temperature=temperature) for crop in CROPS])
        for maps in (one, other)
    )  # (crops, B, C)
    return MapAgreement(
        same_top=(ids[..., 0] == other_ids[..., 0]).float().mean(1),
        logit_median=_reduce(differences, torch.median),
        logit_largest=_reduce(differences, torch.max),
        total_variation=(labels - other_labels).abs().sum(2).mean(0) / 2,
        same_pooled=labels[0].argmax(1) == other_labels[0].argmax(1),
    )


def list_class_ids(maps: LabelMapBatch) -> Tensor:
    """Return the class ids of each cell: (B, H*W, k) int64, by descending logit."""
    ids = maps.classes.gather(1, maps.index.flatten(1))
    return ids.view(len(ids), -1, maps.index.shape[3])


def _reduce(differences: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([function(d) if len(d) else torch.tensor(torch.nan) for d in differences])


def _pool(maps: LabelMapBatch, crop: Sequence[float], *, absent_share: float, temperature: float) -> Tensor:
    boxes = torch.tensor([crop]).expand(len(maps.classes), 4)
    return pool_label_maps(maps, boxes, absent_share=absent_share, temperature=temperature)
