"""Boxes of an image in the pixels of a detector's input."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def resize_boxes(
    boxes: Floats, image_sizes: Floats, *, input_size: tuple[int, int], resize: Literal["stretch", "letterbox"]
) -> Floats:
    """Return (N, 4) xyxy pixels of the input for (N, 4) xyxy pixels of images.

    `image_sizes` (N, 2) are widths and heights, `input_size` is height and width. With letterbox the image is made as
    large as it fits, also when that enlarges it, and stands in the middle. A box is cut at its image's edges.
    """
    room = np.array([input_size[1], input_size[0]], np.float64)
    scale = room / image_sizes
    if resize == "letterbox":
        scale = np.repeat(scale.min(1, keepdims=True), 2, 1)
    corners = np.clip(boxes.reshape(-1, 2, 2), 0, image_sizes[:, None])
    placed: Floats = corners * scale[:, None] + ((room - image_sizes * scale) / 2)[:, None]
    return placed.reshape(-1, 4)
