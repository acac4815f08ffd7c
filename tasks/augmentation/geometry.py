"""Where the steps of a view put things: frames, points, boxes, and the part of the image that stays in sight."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from labelmill.schemas.errors import BadInput
from labelmill.schemas.views import (
    CropStep,
    CutoutStep,
    FlipStep,
    MosaicStep,
    MosaicTile,
    ResizeStep,
    Step,
    View,
    WarpStep,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]

Matrix = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f take a point (x, y) to (ax + by + c, dx + ey + f)."""

IDENTITY: Matrix = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Frame = tuple[int, int]
"""Width and height in pixels."""

_Corner = tuple[float, float, float, float]
"""x and y in the image, then in the frame."""

_DIGITS = 9
"""Corners are rounded to a billionth of a pixel, so that a clip at a whole pixel leaves a whole number."""


def frame_after(step: Step, frame: Frame) -> Frame:
    """Return the frame after a step; raise BadInput when the step does not fit into it."""
    match step:
        case CropStep():
            right, bottom = step.left + step.width, step.top + step.height
            if right > frame[0] + 2 * step.reflect or bottom > frame[1] + 2 * step.reflect:
                raise BadInput(f"steps: a crop to {right}, {bottom} does not fit into {frame[0]}x{frame[1]} pixels")
            return step.width, step.height
        case ResizeStep() | MosaicStep():
            return step.width, step.height
        case CutoutStep():
            if step.left + step.width > frame[0] or step.top + step.height > frame[1]:
                raise BadInput(f"steps: a cutout does not fit into {frame[0]}x{frame[1]} pixels")
    return frame


def find_matrix(step: Step, frame: Frame) -> Matrix:
    """Return what takes a point of the frame before a step to its place after it.

    Points are counted from the outer corner of the first pixel, so that the frame's far corner is (width, height).
    """
    match step:
        case CropStep():
            return 1.0, 0.0, float(step.reflect - step.left), 0.0, 1.0, float(step.reflect - step.top)
        case ResizeStep():
            return step.width / frame[0], 0.0, 0.0, 0.0, step.height / frame[1], 0.0
        case FlipStep():
            return -1.0, 0.0, float(frame[0]), 0.0, 1.0, 0.0
        case WarpStep():
            return _find_warp(step, frame)
    return IDENTITY


def _find_warp(step: WarpStep, frame: Frame) -> Matrix:
    amount = step.amount
    match step.op:
        case "rotate":
            turn = math.radians(amount)
            cos, sin = math.cos(turn), math.sin(turn)
            x, y = frame[0] / 2, frame[1] / 2
            return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y
        case "shear_x":
            return 1.0, amount, 0.0, 0.0, 1.0, 0.0
        case "shear_y":
            return 1.0, 0.0, 0.0, amount, 1.0, 0.0
        case "translate_x":
            return 1.0, 0.0, amount, 0.0, 1.0, 0.0
        case _:
            return 1.0, 0.0, 0.0, 0.0, 1.0, amount


def find_tile_matrix(tile: MosaicTile, size: Frame) -> Matrix:
    """Return what takes a point of a tile's image to its place in the mosaic."""
    across, down = tile.scaled_width / size[0], tile.scaled_height / size[1]
    return across, 0.0, float(tile.left - tile.skip_left), 0.0, down, float(tile.top - tile.skip_top)


def move_points(points: Floats, matrix: Matrix) -> Floats:
    """Return points (…, 2) float64 moved by a matrix."""
    a, b, c, d, e, f = matrix
    x, y = points[..., 0], points[..., 1]
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)


def describe_view(steps: tuple[Step, ...], size: Frame) -> View:
    """Return the view that steps make of an image of `size`; raise BadInput when they do not fit one another."""
    frame, flips = size, 0
    seen: list[_Corner] = [(x, y, x, y) for x, y in ((0, 0), (size[0], 0), size, (0, size[1]))]
    for place, step in enumerate(steps):
        if isinstance(step, MosaicStep) and place:
            raise BadInput("steps: mosaic can only come first")
        flips += isinstance(step, FlipStep)
        if not place and isinstance(step, CropStep) and not step.reflect:  # as nearly all views begin
            seen = _corners_of(step)
            frame = frame_after(step, frame)
            continue
        a, b, c, d, e, f = find_matrix(step, frame)
        seen = [(u, v, a * x + b * y + c, d * x + e * y + f) for u, v, x, y in seen]
        frame = frame_after(step, frame)
        if isinstance(step, CropStep | WarpStep):
            seen = _clip(seen, frame)
    return View(
        steps=steps, width=frame[0], height=frame[1], flipped=flips % 2 == 1,
        box=None if steps and isinstance(steps[0], MosaicStep) else _bound(seen, size),
    )  # fmt: skip


def _corners_of(step: CropStep) -> list[_Corner]:
    left, top, width, height = step.left, step.top, step.width, step.height
    return [(left + x, top + y, x, y) for x, y in ((0, 0), (width, 0), (width, height), (0, height))]


def _bound(seen: list[_Corner], size: Frame) -> tuple[float, float, float, float]:
    """Return the box in [0, 1] around corners; of nothing, as when all was moved out, the whole image."""
    across, down = [corner[0] for corner in seen], [corner[1] for corner in seen]
    if not seen or not (max(across) > min(across) and max(down) > min(down)):
        return 0.0, 0.0, 1.0, 1.0
    return min(across) / size[0], min(down) / size[1], max(across) / size[0], max(down) / size[1]


def _clip(seen: list[_Corner], frame: Frame) -> list[_Corner]:
    """Cut a convex polygon at the edges of a frame.

    Source: Sutherland and Hodgman 1974, Reentrant polygon clipping.
    """
    for axis, bound, side in ((2, 0, 1), (2, frame[0], -1), (3, 0, 1), (3, frame[1], -1)):
        inside = [side * (corner[axis] - bound) for corner in seen]
        if not inside or min(inside) >= 0:
            continue
        kept = []
        for place, a in enumerate(inside):
            b = inside[place - 1]
            if (a > 0 > b) or (a < 0 < b):
                here, there = seen[place], seen[place - 1]
                at = a / (a - b)
                x, y, u, v = (round(p + (q - p) * at, _DIGITS) for p, q in zip(here, there, strict=True))
                kept.append((x, y, u, v))
            if a >= 0:
                kept.append(seen[place])
        seen = kept
    return seen
