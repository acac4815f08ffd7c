"""From a batch of dense logits to what is stored of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labelmill.models.label_encoding import STEPS_MAX, EncodedMap, TopCells, encode_maps, gather_maps, top_cells
from labelmill.models.label_pooling import pool_logits
from labelmill.schemas.images import Reason
from labelmill.schemas.label_maps import MapReason
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.settings import RelabelSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """What became of an image: a map and its pooled class and probability over the whole image, or a reason."""

    map: EncodedMap | None = None
    pooled_class: int | None = None
    pooled_prob: float | None = None
    reason: Reason | MapReason | None = None
    detail: str | None = None


def reject(rejected: RejectedImage) -> Labelled:
    """Return what becomes of an image that could not be loaded."""
    return Labelled(reason=rejected.reason, detail=rejected.detail)


def encode_batch(dense: Tensor, settings: RelabelSettings, temperature: float) -> list[Labelled]:
    """Return what is stored of each image of dense logits (B, C, h, w).

    An image with a logit that is not finite, or too large to be stored, is rejected; the others are as without it.
    """
    return encode_top(top_cells(dense, settings.top_k), settings, temperature, num_classes=dense.shape[1])


def encode_top(top: TopCells, settings: RelabelSettings, temperature: float, *, num_classes: int) -> list[Labelled]:
    """Return what is stored of each image of a batch's top cells, on the CPU."""
    encoded = encode_maps(top, step=settings.logit_step)
    grid = (top.ids.shape[1], top.ids.shape[2])
    logits = pool_whole([m for m in encoded if m is not None], grid, num_classes=num_classes, settings=settings)
    prob, place = torch.softmax(logits / temperature, dim=1).max(1)
    pooled = iter(zip(place.tolist(), prob.tolist(), strict=True))
    return [_labelled(m, next(pooled)) if m is not None else _not_finite(settings) for m in encoded]


def _labelled(encoded: EncodedMap, pooled: tuple[int, float]) -> Labelled:
    return Labelled(map=encoded, pooled_class=pooled[0], pooled_prob=pooled[1])


def _not_finite(settings: RelabelSettings) -> Labelled:
    limit = STEPS_MAX * settings.logit_step
    return Labelled(reason=Reason.NOT_FINITE, detail=f"logits: expected finite values within ±{limit:g}")


def pool_whole(
    maps: Sequence[EncodedMap], grid: tuple[int, int], *, num_classes: int, settings: RelabelSettings
) -> Tensor:
    """Return the default mode's logits (N, C) of whole images from their stored maps, as any reader gets them."""
    batch = gather_maps(
        maps, grid=grid, top_k=min(settings.top_k, num_classes), step=settings.logit_step, num_classes=num_classes
    )
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(maps), 4)
    return pool_logits(batch, boxes, absent_share=settings.absent_share)
