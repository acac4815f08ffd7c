"""Make a view of pixels, masks and boxes from its steps: nothing is drawn, so that every replay gives the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmill.schemas.errors import BadInput
from labelmill.schemas.views import (
    AdjustStep,
    CropStep,
    CutoutStep,
    FlipStep,
    MosaicStep,
    MosaicTile,
    ResizeStep,
    Step,
    ToneStep,
    WarpStep,
)
from labelmill.tasks.augmentation import pixel_ops
from labelmill.tasks.augmentation.geometry import (
    Floats,
    Frame,
    Matrix,
    find_matrix,
    find_tile_matrix,
    frame_after,
    move_points,
)
from labelmill.tasks.augmentation.pixel_ops import Pixels

ReadPartner = Callable[[str], Pixels]
"""Gives the pixels of another image of a mosaic, by its id; raises RejectedImage when they cannot be read."""


def apply_to_pixels(pixels: Pixels, steps: Sequence[Step], *, read_partner: ReadPartner | None = None) -> Pixels:
    """Return the view of an image, (H, W, 3) uint8 RGB, as an array of its own.

    Raises BadInput for pixels of another form, for steps that do not fit them, and for a mosaic without `read_partner`.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise BadInput(f"pixels: expected (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    viewed = pixels
    for step in steps:
        frame_after(step, pixel_ops.frame_of(viewed))
        viewed = _apply(viewed, step, read_partner)
    return np.array(viewed) if np.shares_memory(viewed, pixels) else np.ascontiguousarray(viewed)


def _apply(pixels: Pixels, step: Step, read_partner: ReadPartner | None) -> Pixels:
    match step:
        case AdjustStep():
            return pixel_ops.adjust(pixels, step)
        case ToneStep():
            return pixel_ops.set_tone(pixels, step)
        case CutoutStep():
            return pixel_ops.cut_out(pixels, step)
        case MosaicStep():
            if read_partner is None:
                raise BadInput("mosaic: the other images are needed too: give read_partner")
            own = [pixels if tile.image_id is None else read_partner(tile.image_id) for tile in step.tiles]
            return _join_tiles(own, step, channels=3)
    return _move(pixels, step)


def _move(pixels: Pixels, step: Step) -> Pixels:
    """Do what a step does to places, to pixels or a mask."""
    match step:
        case CropStep():
            return pixel_ops.crop(pixels, step)
        case ResizeStep():
            return pixel_ops.resize(pixels, step)
        case FlipStep():
            return pixel_ops.flip(pixels)
        case WarpStep():
            return pixel_ops.warp(pixels, step)
    return pixels


def _join_tiles(pictures: Sequence[Pixels | None], step: MosaicStep, channels: int | None) -> Pixels:
    canvas = pixel_ops.new_canvas((step.width, step.height), channels)
    for picture, tile in zip(pictures, step.tiles, strict=True):
        if picture is not None:
            scaled = pixel_ops.resize_to(picture, (tile.scaled_width, tile.scaled_height), step.filter)
            part = scaled[tile.skip_top : tile.skip_top + tile.height, tile.skip_left : tile.skip_left + tile.width]
            canvas[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = part
    return canvas


def apply_to_mask(mask: Pixels, steps: Sequence[Step], *, tile: MosaicTile | None = None) -> Pixels:
    """Return the view of a mask, (H, W) uint8 of the size of its image: moved as the pixels are, nothing blended.

    Of a mosaic, `tile` says which of its images the mask is of. Beyond the image's edge there is no mask, also where
    pixels are mirrored; what a cutout hides stays in the mask. Raises BadInput for an array of another form.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise BadInput(f"mask: expected (H, W) uint8, got {mask.shape} {mask.dtype}")
    viewed = mask
    for step in steps:
        frame_after(step, pixel_ops.frame_of(viewed))
        if isinstance(step, MosaicStep):
            if tile not in step.tiles:
                raise BadInput("mosaic: tile: expected the tile that the mask belongs to")
            viewed = _join_tiles([viewed if one == tile else None for one in step.tiles], step, channels=None)
        elif isinstance(step, CropStep) and step.reflect:
            viewed = pixel_ops.crop(np.pad(viewed, step.reflect), step.model_copy(update={"reflect": 0}))
        else:
            viewed = _move(viewed, step)
    return np.array(viewed)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedBoxes:
    """Boxes of a view: (m, 4) float64 x1 y1 x2 y2 in pixels of the view, (m,) places in the list that was given.

    visible: (m,) float64, the share of each box's area that neither an edge nor a cutout hides.
    """

    xyxy: Floats
    places: npt.NDArray[np.int64]
    visible: Floats


def apply_to_boxes(
    boxes: Floats,
    steps: Sequence[Step],
    *,
    size: Frame,
    min_visible: float = 0.0,
    tile: MosaicTile | None = None,
) -> CarriedBoxes:
    """Carry boxes (n, 4) float64 x1 y1 x2 y2, in pixels of an image of `size` (width, height), into its view.

    A box that is turned or sheared becomes the smallest around its corners. All lie inside the view; those of which
    less than `min_visible` is visible, or nothing, are left out. Of a mosaic, `tile` says which image it is.
    """
    carried = _clip(np.asarray(boxes, np.float64).reshape(-1, 4), size)
    visible = np.ones(len(carried))
    frame = size
    for step in steps:
        before = frame
        frame = frame_after(step, frame)
        if isinstance(step, MosaicStep):
            if tile is None or tile not in step.tiles:
                raise BadInput("mosaic: tile: expected the tile that the boxes belong to")
            carried, visible = _cut(
                _move_boxes(carried, find_tile_matrix(tile, size)), visible,
                (tile.left, tile.top, tile.left + tile.width, tile.top + tile.height),
            )  # fmt: skip
        elif isinstance(step, CutoutStep):
            visible = visible * (1 - _share_covered(carried, step))
        else:
            carried, visible = _cut(_move_boxes(carried, find_matrix(step, before)), visible, (0, 0, *frame))
    kept = np.flatnonzero((visible > 0) & (visible >= min_visible) & (_areas(carried) > 0))
    return CarriedBoxes(xyxy=carried[kept], places=kept, visible=visible[kept])


def _move_boxes(boxes: Floats, matrix: Matrix) -> Floats:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = move_points(corners, matrix)
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


def _clip(boxes: Floats, size: tuple[int, int]) -> Floats:
    clipped: Floats = np.clip(boxes, 0, [size[0], size[1], size[0], size[1]])
    return clipped


def _cut(boxes: Floats, visible: Floats, bounds: tuple[int, int, int, int]) -> tuple[Floats, Floats]:
    """Return boxes cut at bounds x1 y1 x2 y2, and the shares that stay visible."""
    low, high = np.array(bounds[:2] * 2, np.float64), np.array(bounds[2:] * 2, np.float64)
    cut: Floats = np.clip(boxes, low, high)
    before = _areas(boxes)
    share = np.divide(_areas(cut), before, out=np.zeros(len(boxes)), where=before > 0)
    return cut, visible * share


def _areas(boxes: Floats) -> Floats:
    areas: Floats = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas


def _share_covered(boxes: Floats, step: CutoutStep) -> Floats:
    hole = np.array([step.left, step.top, step.left + step.width, step.top + step.height], np.float64)
    low, high = np.maximum(boxes[:, :2], hole[:2]), np.minimum(boxes[:, 2:], hole[2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = _areas(boxes)
    share: Floats = np.divide(common, areas, out=np.zeros(len(boxes)), where=areas > 0)
    return share
