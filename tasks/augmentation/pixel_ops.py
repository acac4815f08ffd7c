"""What steps do to pixels. The only module that imports albumentations.

Its functions are used, not its transforms: they take the numbers that a view records, and draw nothing. Equalising and
stretching the contrast are written here: albumentations 2.0.8 writes into its argument in the one, counts cumulative
histograms a value off against Pillow's, and sees no white in the other.
"""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks a server for the latest release

import albucore
import albumentations.augmentations.crops.functional as crops
import albumentations.augmentations.dropout.functional as holes
import albumentations.augmentations.geometric.functional as geometric
import albumentations.augmentations.pixel.functional as colours
import cv2
import numpy as np
import numpy.typing as npt

from labelmill.schemas.views import AdjustStep, CropStep, CutoutStep, Fill, Filter, ResizeStep, ToneStep, WarpStep
from labelmill.tasks.augmentation.geometry import Frame, Matrix, find_matrix

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB, or (H, W) of a mask."""

_FILTERS: dict[Filter, int] = {
    "nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC,
}  # fmt: skip

_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's SMOOTH, which its sharpness mixes with."""


def use_one_thread() -> None:
    """Keep OpenCV from threads of its own in this process: beside ours they only wait for each other.

    Call it before a fork too: in what is forked from a process whose OpenCV has threads, this waits for them for ever.
    """
    if cv2.getNumThreads() > 1:
        cv2.setNumThreads(1)


def frame_of(pixels: Pixels) -> Frame:
    """Return (width, height)."""
    return pixels.shape[1], pixels.shape[0]


def crop(pixels: Pixels, step: CropStep) -> Pixels:
    """Return a part of an image, of its mirror images where it reaches beyond the edge; may share memory."""
    if step.reflect:
        around = step.reflect
        pixels = geometric.copy_make_border_with_value_extension(
            pixels, around, around, around, around, cv2.BORDER_REFLECT_101, 0
        )
    part: Pixels = crops.crop(pixels, step.left, step.top, step.left + step.width, step.top + step.height)
    return part


def resize(pixels: Pixels, step: ResizeStep) -> Pixels:
    """Return a resized image; of a mask, the nearest pixels."""
    return resize_to(pixels, (step.width, step.height), step.filter)


def resize_to(pixels: Pixels, size: Frame, name: Filter) -> Pixels:
    """Return an image resized to (width, height)."""
    chosen = cv2.INTER_NEAREST_EXACT if pixels.ndim == 2 else _FILTERS[name]
    resized: Pixels = geometric.resize(pixels, (size[1], size[0]), chosen)
    return resized


def flip(pixels: Pixels) -> Pixels:
    """Return the mirror image."""
    mirrored: Pixels = cv2.flip(pixels, 1).astype(np.uint8, copy=False)
    return mirrored


def warp(pixels: Pixels, step: WarpStep) -> Pixels:
    """Return an image whose pixels are moved; of a mask the nearest ones, with zeros from outside."""
    frame = frame_of(pixels)
    matrix = _between_centres(find_matrix(step, frame))
    mask = pixels.ndim == 2
    moved: Pixels = geometric.warp_affine(
        pixels, matrix, cv2.INTER_NEAREST if mask else _FILTERS[step.filter], 0 if mask else step.fill,
        cv2.BORDER_CONSTANT, (frame[1], frame[0]),
    )  # fmt: skip
    return moved


def _between_centres(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Return a (3, 3) matrix between the centres of pixels, which OpenCV counts from, for one between corners."""
    a, b, c, d, e, f = matrix
    return np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2], [0, 0, 1]])


def adjust(pixels: Pixels, step: AdjustStep) -> Pixels:
    """Return (H, W, 3) with other colours."""
    amount = step.amount
    match step.op:
        case "brightness":
            changed: Pixels = colours.adjust_brightness_torchvision(pixels, amount)
        case "contrast":
            changed = colours.adjust_contrast_torchvision(pixels, amount)
        case "color":
            changed = colours.adjust_saturation_torchvision(pixels, amount)
        case "sharpness":
            changed = _sharpen(pixels, amount)
        case "posterize":
            changed = pixels if amount >= 8 else colours.posterize(pixels, int(amount))
        case "solarize":
            table = np.where(amount <= _VALUES, 255 - _VALUES, _VALUES)
            changed = albucore.sz_lut(pixels, table.astype(np.uint8), False)
    return changed


_VALUES = np.arange(256)


def _sharpen(pixels: Pixels, factor: float) -> Pixels:
    """Mix an image with a smooth copy of it; the rim stays as it was, as Pillow has it."""
    if factor == 1 or min(pixels.shape[:2]) < 3:
        return pixels
    smooth = pixels.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(pixels, -1, _SMOOTH)[1:-1, 1:-1]
    changed: Pixels = cv2.addWeighted(pixels, factor, smooth, 1 - factor, 0).astype(np.uint8, copy=False)
    return changed


def set_tone(pixels: Pixels, step: ToneStep) -> Pixels:
    """Return (H, W, 3) inverted, equalised, or stretched to the whole range of values, each channel by itself."""
    match step.op:
        case "invert":
            inverted: Pixels = colours.invert(pixels)
            return inverted
        case "equalize":
            make_table = _equalize
        case "auto_contrast":
            make_table = _stretch
    table = np.stack([make_table(_count_values(pixels, channel)) for channel in range(3)], axis=-1)
    changed: Pixels = cv2.LUT(pixels, table.astype(np.uint8)[None]).astype(np.uint8, copy=False)
    return changed


def _count_values(pixels: Pixels, channel: int) -> npt.NDArray[np.int64]:
    """Return the (256,) counts of a channel's values; OpenCV's are floats, whole up to 16 million."""
    if pixels.shape[0] * pixels.shape[1] < 2**24:
        return cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    return np.bincount(pixels[..., channel].ravel(), minlength=256)


def _equalize(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the (256,) table that spreads values evenly, in whole numbers as Pillow computes it."""
    used = counts[counts > 0]
    step = int(used[:-1].sum()) // 255
    if not step:
        return _VALUES
    below = np.cumsum(counts) - counts
    table: npt.NDArray[np.int64] = np.minimum((below + step // 2) // step, 255)
    return table


def _stretch(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the (256,) table that takes the least value to 0 and the largest to 255."""
    used = np.flatnonzero(counts)
    least, largest = int(used[0]), int(used[-1])
    if largest <= least:
        return _VALUES
    return ((_VALUES - least) * (255 / (largest - least))).clip(0, 255).astype(np.int64)


def cut_out(pixels: Pixels, step: CutoutStep) -> Pixels:
    """Return (H, W, 3) with a filled rectangle."""
    hole = np.array([[step.left, step.top, step.left + step.width, step.top + step.height]])
    filled: Pixels = holes.fill_holes_with_value(pixels.copy(), hole, np.array(step.fill, np.uint8))
    return filled


def new_canvas(size: Frame, channels: int | None, fill: Fill = (0, 0, 0)) -> Pixels:
    """Return an image of (width, height) in one colour; without channels a mask of zeros."""
    shape = (size[1], size[0]) if channels is None else (size[1], size[0], channels)
    return np.full(shape, 0 if channels is None else fill, np.uint8)
