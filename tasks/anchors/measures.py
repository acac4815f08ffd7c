"""What a chosen set of anchors is worth: how it fits each class, and how many anchors learn boxes of each size."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from labelmill.models.anchor_assignment import assign_by_atss, assign_by_iou, count_positives
from labelmill.models.anchor_grid import place_pyramid
from labelmill.models.box_sizes import Sizes, best_ious, size_ratios
from labelmill.schemas.anchors import ANCHOR_CLASSES_SCHEMA, ANCHOR_POSITIVES_SCHEMA, RATIO_LIMIT
from labelmill.schemas.classes import ClassList
from labelmill.schemas.parameters import AnchorsParameters, parse_input_size, parse_strides
from labelmill.tasks.anchors.read_boxes import InputBoxes

SIZE_BOUNDS_PX = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, np.inf)
"""Sizes of boxes (the root of their area in the input) that are told apart: doublings around COCO's 32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Positives:
    """For N boxes of drawn images: (N,) sizes in pixels, and for each rule (N,) how many anchors learn each box."""

    sizes_px: npt.NDArray[np.float64]
    counts: dict[str, npt.NDArray[np.int64]]


def measure_classes(boxes: InputBoxes, anchors: Sizes, classes: ClassList | None) -> pa.Table:
    """Return rows of ANCHOR_CLASSES_SCHEMA for the classes that have boxes, by their ids; boxes without come last."""
    best, near = best_ious(boxes.sizes, anchors)[0], size_ratios(boxes.sizes, anchors) > 1 / RATIO_LIMIT
    found, group, counts = np.unique(boxes.class_ids, return_inverse=True, return_counts=True)
    order = np.lexsort((found, found < 0))
    ids = [int(found[place]) for place in order]
    named = classes.classes if classes else ()
    columns = [
        [number if number >= 0 else None for number in ids],
        [named[number].name if 0 <= number < len(named) else None for number in ids],
        counts[order],
        (np.bincount(group, best) / counts)[order],
        (np.bincount(group, near) / counts)[order],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, ANCHOR_CLASSES_SCHEMA, strict=True)]
    return pa.table(arrays, schema=ANCHOR_CLASSES_SCHEMA)


def draw_images(boxes: InputBoxes, count: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Draw images that have boxes; return for each the places of its boxes."""
    order = np.argsort(boxes.images, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(boxes.images[order])) + 1)
    if len(groups) <= count:
        return groups
    drawn = np.random.default_rng(seed).choice(len(groups), count, replace=False)
    return [groups[place] for place in np.sort(drawn)]


def learn_positives(
    boxes: InputBoxes, anchors: Sizes, parameters: AnchorsParameters, *, on_image: Callable[[], None] = lambda: None
) -> Positives:
    """Assign the anchors of every place of the input to the boxes of drawn images, by IoU and by ATSS.

    `anchors` (K, 2) sorted by area are split over the parameters' strides.
    """
    strides = parse_strides(parameters.strides or "32")
    placed, levels = place_pyramid(
        torch.from_numpy(anchors).float(), input_size=parse_input_size(parameters.input_size), strides_px=strides
    )
    groups = draw_images(boxes, parameters.positives_images, parameters.seed)

    def assign(group: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.int64], ...]:
        truths = torch.from_numpy(boxes.xyxy[group]).float()
        by_iou = assign_by_iou(placed, truths, positive=parameters.positive_iou, negative=parameters.negative_iou)
        by_atss = assign_by_atss(placed, levels, truths, per_place=len(anchors) // len(strides))
        on_image()
        return tuple(count_positives(assigned, len(truths)).numpy() for assigned in (by_iou, by_atss))

    before = torch.get_num_threads()
    try:  # threads of one core each: what torch would spread over cores is too small to gain by it
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as threads:
            counts = list(threads.map(assign, groups))
    finally:
        torch.set_num_threads(before)  # what a thread sets is also the number of those that come later
    drawn = np.concatenate(groups)
    return Positives(
        sizes_px=np.sqrt(boxes.sizes[drawn].prod(1)),
        counts={rule: np.concatenate([each[at] for each in counts]) for at, rule in enumerate(("iou", "atss"))},
    )  # fmt: skip


def count_by_size(positives: Positives, source: str) -> pa.Table:
    """Return rows of ANCHOR_POSITIVES_SCHEMA: by rule and size of the boxes, without sizes that no box has."""
    rows = []
    for rule, counts in positives.counts.items():
        for low, high in pairwise(SIZE_BOUNDS_PX):
            here = counts[(positives.sizes_px >= low) & (positives.sizes_px < high)]
            if len(here):
                bound = None if np.isinf(high) else high
                total, without = int(here.sum()), int((here == 0).sum())
                rows.append((source, rule, low, bound, len(here), total, total / len(here), without))
    names = ANCHOR_POSITIVES_SCHEMA.names
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=ANCHOR_POSITIVES_SCHEMA)
