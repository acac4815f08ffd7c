"""Carry the shape of an object, polygons or RLE as COCO has them, into a view."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from labelmill.schemas.views import MosaicTile, Step
from labelmill.tasks.augmentation.apply_view import apply_to_mask
from labelmill.tasks.augmentation.geometry import Frame
from labelmill.tasks.augmentation.pixel_ops import Pixels

_BEYOND = 4
"""Polygons may reach over the edge; pycocotools would fill the memory with one that lies further off, in sides."""


def carry_shape(
    segmentation: str, steps: Sequence[Step], *, size: Frame, tile: MosaicTile | None = None
) -> tuple[str, float] | None:
    """Return a shape's part in a view as RLE in JSON, and its area in pixels, which may be 0; None for a damaged shape.

    `segmentation` is JSON of an image of `size` (width, height).
    """
    mask = draw_shape(segmentation, size)
    if mask is None:
        return None
    shown = apply_to_mask(mask, steps, tile=tile)
    encoded = coco_mask.encode(np.asfortranarray(shown))
    text = {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
    return json.dumps(text, separators=(",", ":")), float(np.count_nonzero(shown))


def draw_shape(segmentation: str, size: Frame) -> Pixels | None:
    """Return the mask (H, W) uint8, 0 or 1, of a shape in JSON; None for one that is empty, damaged or of another size.

    All is checked here: pycocotools reads beyond its buffers when counts do not fit the size.
    """
    try:
        shape = json.loads(segmentation)
    except ValueError:
        return None
    if isinstance(shape, dict):
        return _draw_runs(shape.get("counts"), shape.get("size"), size)
    return _draw_polygons(shape, size) if isinstance(shape, list) else None


def _draw_runs(counts: object, stated: object, size: Frame) -> Pixels | None:
    """Draw runs of zeros and ones in turn, down the columns."""
    runs = _read_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return None
    if stated != [size[1], size[0]] or sum(runs) != size[0] * size[1]:
        return None
    values = np.arange(len(runs), dtype=np.uint8) % 2
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size).T)


def _read_runs(text: str) -> list[int]:
    """Return the runs of COCO's text: five bits in each character from '0' on, the lowest first, the sixth says more
    follow; from the third on each is the difference to the one before the last."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _draw_polygons(polygons: list[Any], size: Frame) -> Pixels | None:
    drawn = [polygon for polygon in polygons if _is_polygon(polygon, max(size))]
    if not drawn:
        return None
    encoded = coco_mask.merge(coco_mask.frPyObjects(drawn, size[1], size[0]))
    # Its own decoding needs a protocol that numpy 2 warns of.
    return _draw_runs(encoded["counts"].decode("ascii"), [size[1], size[0]], size)


def _is_polygon(polygon: object, side: int) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(type(value) in (int, float) and abs(value) <= _BEYOND * side for value in polygon)
    )
