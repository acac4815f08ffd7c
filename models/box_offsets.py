"""Boxes as a detector's head gives them: offsets from anchors, and back."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

SSD_VARIANCES = (0.1, 0.1, 0.2, 0.2)

LOG_RATIO_LIMIT = math.log(1000 / 16)
"""No side becomes more than 62.5 times its anchor's, where exp would overflow: Detectron's bound."""

_INSIDE = 1e-6
"""A centre on the very edge of what a sigmoid can reach would be infinite."""

Form = Literal["yolov3", "yolov5"]


def encode_offsets(
    boxes: Tensor, anchors: Tensor, *, variances: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Return (N, 4) offsets of (N, 4) xyxy boxes from (N, 4) xyxy anchors.

    They are the centre's by the anchor's size, and the logarithms of the ratios of the sizes, each
    divided by its variance (SSD_VARIANCES; torchvision's weights are 1 / variance). Sides must be above 0.
    Source: Girshick et al. 2014 (R-CNN), appendix C.
    """
    (centre, size), (anchor_centre, anchor_size) = _split(boxes), _split(anchors)
    offsets = torch.cat([(centre - anchor_centre) / anchor_size, torch.log(size / anchor_size)], 1)
    return offsets / offsets.new_tensor(variances)


def decode_offsets(
    offsets: Tensor, anchors: Tensor, *, variances: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Return (N, 4) xyxy boxes of (N, 4) offsets from (N, 4) xyxy anchors; sizes end at LOG_RATIO_LIMIT."""
    anchor_centre, anchor_size = _split(anchors)
    scaled = offsets * offsets.new_tensor(variances)
    centre = scaled[:, :2] * anchor_size + anchor_centre
    half = torch.exp(scaled[:, 2:].clamp(max=LOG_RATIO_LIMIT)) * anchor_size / 2
    return torch.cat([centre - half, centre + half], 1)


def encode_in_cells(
    boxes: Tensor, anchor_sizes: Tensor, cells: Tensor, *, stride_px: float, form: Form = "yolov3"
) -> Tensor:
    """Return (N, 4) raw outputs of a YOLO head for (N, 4) xyxy boxes in pixels.

    `anchor_sizes` (N, 2) in pixels, `cells` (N, 2) column and row. With yolov3 a centre must lie in its cell and any
    size can be said; with yolov5 it may lie half a cell beyond, and a side be at most four times the anchor's. What
    cannot be said becomes the nearest that can. Source: Redmon & Farhadi 2018 (YOLOv3), section 2.1; yolov5's head.
    """
    centre, size = _split(boxes)
    place, ratio = centre / stride_px - cells, size / anchor_sizes
    if form == "yolov3":
        return torch.cat([_logit(place), torch.log(ratio)], 1)
    return torch.cat([_logit((place + 0.5) / 2), _logit(torch.sqrt(ratio) / 2)], 1)


def decode_in_cells(
    outputs: Tensor, anchor_sizes: Tensor, cells: Tensor, *, stride_px: float, form: Form = "yolov3"
) -> Tensor:
    """Return (N, 4) xyxy boxes in pixels of a YOLO head's (N, 4) raw outputs; see `encode_in_cells`."""
    place = torch.sigmoid(outputs[:, :2])
    if form == "yolov3":
        ratio = torch.exp(outputs[:, 2:].clamp(max=LOG_RATIO_LIMIT))
    else:
        place, ratio = 2 * place - 0.5, (2 * torch.sigmoid(outputs[:, 2:])) ** 2
    centre, half = (place + cells) * stride_px, ratio * anchor_sizes / 2
    return torch.cat([centre - half, centre + half], 1)


def _split(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (N, 2) centres and sizes of (N, 4) xyxy boxes."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def _logit(values: Tensor) -> Tensor:
    return torch.logit(values, eps=_INSIDE)
