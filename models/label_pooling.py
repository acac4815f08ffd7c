"""LabelPooling: the label of a crop, from a sparse label map, without ever making the map dense.

It computes in numpy, on one core: a batch takes a millisecond or two, and torch would wait for threads that a trainer's
loader keeps busy. Only the result is as wide as the class list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csc_array
from torch import Tensor

from labelmill.schemas.errors import BadInput

Floats = npt.NDArray[np.float32]

BOX_REACH_MAX = 64.0
"""Boxes may reach this many image sizes beyond the image: far more than any crop, and work stays bounded."""


ABSENT_SHARE = 0.8
"""Shrinks the mean of a class where it is absent: measured at 224 and 475, likelihood is best between 0.7 and 0.8 at
both, and agreement with the dense label hardly lower than with all of it (docs/label-maps.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMapBatch:
    """Label maps of B images, sparse: each image lists L distinct classes, each cell points into that list.

    All tensors are on the CPU.
    classes: (B, L) int64, ids of the listed classes; padding is `num_classes`.
    absent: (B, L) float32, mean centred logit of a listed class over the cells where it is not in the top-k.
    index: (B, H, W, k) integers, places in `classes`, by descending logit.
    logits: (B, H, W, k) float32, centred: the mean of the cell's logits outside its top-k is 0.
    """

    classes: Tensor
    absent: Tensor
    index: Tensor
    logits: Tensor
    num_classes: int


def roi_weights(low: Floats, high: Floats, cells: int) -> Floats:
    """Return how much each cell of one axis counts in RoIAlign with one output bin.

    low, high: (B,) float32, ends of the boxes in [0, 1] of the image; returns (B, cells) float32. Equal to
    `torchvision.ops.roi_align(…, output_size=1, sampling_ratio=-1, aligned=False)` on boxes `ends * cells - 0.5`,
    which is separable in x and y: samples evenly spread over the box, bilinear, none beyond one cell of the border.

    Source: He et al. 2017, Mask R-CNN, section 3; the coordinates are those of Yun et al. 2021, ReLabel.
    """
    half, across = np.float32(0.5), np.float32(cells)  # float32 throughout, as RoIAlign computes
    start = low * across - half
    size = np.maximum(high * across - half - start, np.float32(1))  # aligned=False never samples less than a cell
    samples = np.ceil(size)
    step = np.arange(samples.max(initial=1), dtype=np.float32)
    at = start[:, None] + (step + half) * (size / samples)[:, None]  # (B, S)
    counted = ((step < samples[:, None]) & (at >= -1) & (at <= cells)) / samples[:, None]
    at = at.clip(0, cells - 1)
    cell = at.astype(np.int64)
    share = at - cell  # of the cell after; 0 at the last one
    place = cell + (np.arange(len(cell)) * (cells + 1))[:, None]  # a column more: the cell after the last
    flat = np.bincount(place.ravel(), (counted * (1 - share)).ravel(), minlength=len(cell) * (cells + 1))
    flat[1:] += np.bincount(place.ravel(), (counted * share).ravel(), minlength=len(flat))[:-1]
    return flat.reshape(-1, cells + 1)[:, :cells].astype(np.float32)


def pool_logits(maps: LabelMapBatch, boxes: Tensor, *, absent_share: float) -> Tensor:
    """Pool each image's map over its box; return (B, C) float32 logits.

    boxes: (B, 4) float, x1 y1 x2 y2 in [0, 1] of the image; they may reach beyond it. Where a
    listed class is not in the top-k it counts with `absent_share` of its absent mean; a class that is not listed
    counts with 0. Raises BadInput for boxes of another shape, not finite or absurdly far away.

    Source: Yun et al. 2021, ReLabel, section 3.3.
    """
    pooled = _pool_listed(maps, boxes, absent_share)
    return _spread(pooled, np.zeros(len(pooled), np.float32), maps)


def pool_label_maps(
    maps: LabelMapBatch, boxes: Tensor, *, absent_share: float = ABSENT_SHARE, temperature: float = 1.0
) -> Tensor:
    """Return the label of each image's crop: (B, C) float32 probabilities.

    The softmax of `pool_logits` at a temperature. The paper's arithmetic is `absent_share=0`, `temperature=1`.
    """
    logits = _pool_listed(maps, boxes, absent_share) / np.float32(temperature)
    # All classes that are not listed have logit 0, and so has padding, which stands for as many of them.
    others = maps.num_classes - logits.shape[1]
    top = logits.max(axis=1, keepdims=True, initial=0.0 if others else -np.inf)
    listed, other = np.exp(logits - top), np.exp(-top)
    total = (listed.sum(axis=1, keepdims=True, dtype=np.float64) + others * other).astype(np.float32)
    return _spread(listed / total, (other / total)[:, 0], maps)


def _pool_listed(maps: LabelMapBatch, boxes: Tensor, absent_share: float) -> Floats:
    """Return the pooled logits of the listed classes only: (B, L) float32; those of padding are 0."""
    batch, height, width, top_k = maps.logits.shape
    check_boxes(boxes, batch)
    weights = _cell_weights(boxes, height, width)
    absent = maps.absent.numpy()
    places = _places(maps)
    # A column for each cell with its k entries, a row for each listed class: the product sums over the cells.
    starts, ones = _columns(len(places), top_k)
    entries = csc_array((maps.logits.numpy().ravel(), places, starts), shape=(absent.size, weights.size))
    pooled: Floats = (entries @ weights.ravel()).reshape(absent.shape)
    if absent_share:
        entries.data = ones
        present = (entries @ weights.ravel()).reshape(absent.shape)
        pooled += np.float32(absent_share) * absent * (weights.sum(axis=1, keepdims=True) - present)
    return pooled


@lru_cache(maxsize=4)
def _columns(entries: int, top_k: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """Return where the columns of a matrix of `entries` start, k entries each, and a one for every entry; read-only."""
    starts, ones = np.arange(0, entries + 1, top_k, dtype=np.int32), np.ones(entries, np.float32)
    starts.flags.writeable = ones.flags.writeable = False
    return starts, ones


def _cell_weights(boxes: Tensor, height: int, width: int) -> Floats:
    """Return (B, H*W) float32: how much each cell counts in its image's box."""
    left, top, right, bottom = boxes.detach().cpu().numpy().astype(np.float32).T
    if height == width:  # a call costs more than its numbers: both axes in one
        both = roi_weights(np.concatenate([top, left]), np.concatenate([bottom, right]), height)
        rows, columns = both[: len(boxes)], both[len(boxes) :]
    else:
        rows, columns = roi_weights(top, bottom, height), roi_weights(left, right, width)
    return (rows[:, :, None] * columns[:, None, :]).reshape(len(boxes), height * width)


def _places(maps: LabelMapBatch) -> npt.NDArray[np.int32]:
    """Return (B*H*W*k,) int32 places in the flattened lists; raise BadInput for one that is in no list."""
    index: npt.NDArray[np.integer[Any]] = maps.index.flatten(1).numpy()
    listed = maps.classes.shape[1]
    if index.size and not 0 <= index.min() <= index.max() < listed:  # the product would write beyond its result
        raise BadInput(f"label map: expected places 0 to {listed - 1}, got {index.min()} to {index.max()}")
    places = index.astype(np.int32)
    places += (np.arange(len(index), dtype=np.int32) * listed)[:, None]
    return places.ravel()


def _spread(listed: Floats, other: Floats, maps: LabelMapBatch) -> Tensor:
    """Return (B, C) float32: `listed` (B, L) at the listed classes, `other` (B,) everywhere else."""
    dense = np.repeat(other, maps.num_classes)
    classes = maps.classes.numpy()
    places = classes + (np.arange(len(classes)) * maps.num_classes)[:, None]
    real = classes < maps.num_classes
    dense[places[real]] = listed[real]
    return torch.from_numpy(dense.reshape(len(classes), maps.num_classes))


def check_boxes(boxes: Tensor, batch: int) -> None:
    """Raise BadInput unless `boxes` is (batch, 4), floating, finite and within reach of the image."""
    if boxes.shape != (batch, 4) or not boxes.is_floating_point():
        raise BadInput(
            f"boxes: expected ({batch}, 4) floats, x1 y1 x2 y2 in [0, 1], got {tuple(boxes.shape)} {boxes.dtype}"
        )
    if len(boxes) and not float(boxes.abs().max()) <= BOX_REACH_MAX:  # nor where one is no number
        raise BadInput(f"boxes: expected finite coordinates within ±{BOX_REACH_MAX:g} image sizes; are these pixels?")
