"""From a teacher's dense logits to the sparse, quantised label map that is stored, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelmill.models.label_pooling import LabelMapBatch
from labelmill.schemas.label_maps import ABSENT_FINENESS

Ints = npt.NDArray[np.integer[Any]]

ENCODING_REVISION = 4
"""Part of every shard's key: a change of the arithmetic below takes another number, and no older part for its own."""

LOGIT_STEP = 0.04
"""Unit of stored logits. Measured at 224 and 475: see docs/label-maps.md."""

STEPS_MAX = 32767
"""Stored values are 16 bits wide; a classifier whose logits pass ±1000 is broken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopCells:
    """The top-k of every cell of B maps, centred, and what is needed to describe the rest.

    ids: (B, H, W, k) int64; logits: (B, H, W, k) float64, descending, centred; log_sum_exp: (B, H, W) float64 of the
    centred logits; class_sums: (B, C) float64, each class's centred logits summed over the cells.
    """

    ids: Tensor
    logits: Tensor
    log_sum_exp: Tensor
    class_sums: Tensor


def top_cells(dense: Tensor, top_k: int) -> TopCells:
    """Keep the top-k of each cell of dense logits (B, C, H, W) and centre: no constant of the bias survives.

    Each cell's logits lose the mean of those outside its top-k (the mean of all where the top-k is everything), which
    softmax does not notice. `top_k` above C counts as C.
    """
    cells = dense.float().permute(0, 2, 3, 1)  # (B, H, W, C)
    classes = cells.shape[-1]
    logits, ids = cells.topk(min(top_k, classes), dim=-1)
    outside = classes - logits.shape[-1]
    # Sums of what is left without the mean: float32 noise of a constant in the bias, which would cross more rounding
    # edges of the encoding, does not get into them. Sums in float64 take twice as long.
    mean = cells.mean(-1, keepdim=True)
    apart = cells - mean
    mean = mean.double()
    logits = logits.double() - mean
    total = apart.sum(-1).double()
    centre = (total - logits.sum(-1)) / outside if outside else total / classes
    return TopCells(
        ids=ids,
        logits=logits - centre[..., None],
        log_sum_exp=cells.logsumexp(-1) - mean[..., 0] - centre,
        class_sums=apart.sum((1, 2)).double() - centre.sum((1, 2))[:, None],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedMap:
    """One image's label map as it is stored: integers only, logits in steps.

    The map's L classes are `classes`, (N,) ids of those that lead cells, of most cells first, then `others`, (L-N,) ids
    of the rest. cells: (N,) how many cells each of `classes` leads; absent: (L,) mean centred logit where the class
    is not in the top-k, in steps / ABSENT_FINENESS; index: (H*W*k,) places among the L classes by (y, x, rank);
    top: (H*W,) the top logit in steps; drops: (H*W*(k-1),) by how many steps each further rank is below the one before;
    rest: (H*W,) log-sum-exp minus the top logit, in steps.
    """

    classes: Ints
    cells: Ints
    others: Ints
    absent: Ints
    index: Ints
    top: Ints
    drops: Ints
    rest: Ints

    @property
    def listed(self) -> Ints:
        """Ids of all classes of the map, (L,)."""
        return np.concatenate([self.classes, self.others])


def encode_maps(top: TopCells, *, step: float) -> list[EncodedMap | None]:
    """Encode all images of a batch; `step` is the unit of the stored logits.

    None for an image with a logit that is not finite or too large for 16 bits.
    """
    ids = top.ids.numpy()
    batch, height, width, top_k = ids.shape
    cells = height * width
    num_classes = top.class_sums.shape[1]
    logits = top.logits.numpy().reshape(batch, cells, top_k)
    # One sort for the whole batch: a class of one image is another number than the same class of the next.
    mine = ids.reshape(batch, -1) + np.arange(batch)[:, None] * num_classes
    listed, inverse, present = np.unique(mine, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(batch, cells, top_k)
    image, class_id = np.divmod(listed, num_classes)
    leads = np.bincount(inverse[..., 0].ravel(), minlength=len(listed))
    inside = np.bincount(inverse.ravel(), weights=logits.ravel(), minlength=len(listed))  # summed in float64
    outside = cells - present
    with np.errstate(invalid="ignore"):  # what is not finite gives None below
        absent = (top.class_sums.numpy()[image, class_id] - inside) / np.maximum(outside, 1) * (outside > 0)
    absent_steps, absent_fits = _quantise(absent, step / ABSENT_FINENESS, clip=True)
    steps, fit = _quantise(logits, step)
    sums, sums_fit = _quantise(top.log_sum_exp.numpy().reshape(batch, cells), step)
    storable = fit.all((1, 2)) & sums_fit.all(1) & (np.bincount(image[~absent_fits], minlength=batch) == 0)
    order = np.lexsort((-leads, image))  # within an image the leaders of most cells first, then by id
    starts = np.searchsorted(image, np.arange(batch + 1))
    leading = np.bincount(image[leads > 0], minlength=batch)
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - starts[image]
    return [
        EncodedMap(
            classes=class_id[here[: leading[row]]].astype(np.int32),
            cells=leads[here[: leading[row]]].astype(np.int32),
            others=class_id[here[leading[row] :]].astype(np.int32),
            absent=absent_steps[here],
            index=place[inverse[row].ravel()].astype(np.int32),
            top=steps[row, :, 0],
            drops=(steps[row, :, :-1] - steps[row, :, 1:]).ravel(),
            rest=np.maximum(sums[row] - steps[row, :, 0], 0),  # rounding may not put a class above the sum of all
        )
        if storable[row]
        else None
        for row, here in enumerate(np.split(order, starts[1:-1]))
    ]


def _quantise(
    values: npt.NDArray[np.floating[Any]], step: float, *, clip: bool = False
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return values in steps, int32, and which of them are finite and fit 16 bits; the others are 0.

    With `clip` larger ones become the limit: softmax does not tell 130 above or below the others from more.
    """
    steps: npt.NDArray[np.floating[Any]] = np.rint(values / step)
    if clip:
        steps = np.where(np.isfinite(steps), np.clip(steps, -STEPS_MAX, STEPS_MAX), steps)
    fit = np.abs(steps) <= STEPS_MAX
    return np.where(fit, steps, 0).astype(np.int32), fit


def decode_logits(
    top: npt.NDArray[np.integer], drops: npt.NDArray[np.integer], *, step: float
) -> npt.NDArray[np.float32]:
    """Return centred logits (N, k) float32 of N cells from their `top` (N,) and `drops` (N*(k-1),)."""
    below = np.cumsum(drops.reshape(len(top), len(drops) // max(len(top), 1)), axis=1, dtype=np.int32)
    return np.hstack([top[:, None], top[:, None] - below]).astype(np.float32) * np.float32(step)


def gather_maps(
    maps: Sequence[EncodedMap], *, grid: tuple[int, int], top_k: int, step: float, num_classes: int
) -> LabelMapBatch:
    """Decode stored maps into one batch for pooling; the shapes are those of `LabelMapBatch`."""
    height, width = grid
    longest = max((len(m.absent) for m in maps), default=0)
    classes = np.full((len(maps), longest), num_classes, dtype=np.int64)
    absent = np.zeros((len(maps), longest), dtype=np.float32)
    for row, m in enumerate(maps):
        classes[row, : len(m.absent)] = m.listed
        absent[row, : len(m.absent)] = m.absent
    index = np.array([m.index for m in maps], dtype=np.int64)
    tops = np.concatenate([m.top for m in maps]) if maps else np.empty(0, np.int32)
    drops = np.concatenate([m.drops for m in maps]) if maps else np.empty(0, np.int32)
    shape = (len(maps), height, width, top_k)
    return LabelMapBatch(
        classes=torch.from_numpy(classes),
        absent=torch.from_numpy(absent * np.float32(step / ABSENT_FINENESS)),
        index=torch.from_numpy(index.reshape(shape)),
        logits=torch.from_numpy(decode_logits(tops, drops, step=step).reshape(shape)),
        num_classes=num_classes,
    )
