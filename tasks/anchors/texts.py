"""Anchors in the words of detectors' configurations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from labelmill.models.box_sizes import Sizes

Levels = list[tuple[int | None, list[tuple[float, float]]]]
"""By stride, the finest first, the sizes of its anchors; a stride of None where they are not split."""

_REGION_STRIDE_PX = 32
"""YOLOv2's one map, in whose cells its anchors count."""


def write_texts(sizes: Sizes, strides: Sequence[int | None], *, input_size: tuple[int, int]) -> dict[str, str]:
    """Return texts by file name for darknet, ultralytics, mmdetection and torchvision.

    `sizes` (K, 2) are sorted by area, `strides` has the stride of each, None for all when they are not split.
    `input_size` is height and width in pixels.
    """
    pairs = list(zip(strides, [(float(w), float(h)) for w, h in sizes], strict=True))
    levels: Levels = [(stride, [size for _, size in part]) for stride, part in groupby(pairs, lambda pair: pair[0])]
    head = f"# anchors for an input of {input_size[0]} x {input_size[1]} (height x width) pixels, smallest first\n"
    return {
        "darknet.cfg": head + _write_darknet(levels),
        "ultralytics.yaml": head + _write_ultralytics(levels),
        "mmdetection.py": head + _write_mmdetection(levels),
        "torchvision.py": head + _write_torchvision(levels),
    }


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value >= 1 else f"{value:.4g}"


def _pair(size: tuple[float, float]) -> str:
    return f"{_number(size[0])},{_number(size[1])}"


def _write_darknet(levels: Levels) -> str:
    sizes = [size for _, part in levels for size in part]
    cells = ", ".join(f"{w / _REGION_STRIDE_PX:.5f},{h / _REGION_STRIDE_PX:.5f}" for w, h in sizes)
    lines = [f"anchors = {',  '.join(map(_pair, sizes))}", f"num = {len(sizes)}"]
    first = 0
    for stride, part in levels:
        if stride is not None:
            mask = ",".join(str(number) for number in range(first, first + len(part)))
            lines.append(f"# the [yolo] layer of stride {stride}: mask = {mask}")
        first += len(part)
    lines += [f"# YOLOv2's [region], in cells of {_REGION_STRIDE_PX} pixels:", f"# anchors = {cells}", ""]
    return "\n".join(lines)


def _write_ultralytics(levels: Levels) -> str:
    lines = ["anchors:"]
    for stride, part in levels:
        said = "" if stride is None else f" # stride {stride}"
        lines.append(f"  - [{', '.join(map(_pair, part))}]{said}")
    return "\n".join([*lines, ""])


def _write_mmdetection(levels: Levels) -> str:
    """Coarsest level first, as the necks of its YOLO configurations give them."""
    rows = [", ".join(f"({_number(w)}, {_number(h)})" for w, h in part) for _, part in levels[::-1]]
    strides = ", ".join(str(stride or _REGION_STRIDE_PX) for stride, _ in levels[::-1])
    sizes = "".join(f"        [{row}],\n" for row in rows)
    guessed = "" if levels[0][0] else f"  # not split: {_REGION_STRIDE_PX} is a guess"
    return (
        "anchor_generator=dict(\n    type='YOLOAnchorGenerator',\n    base_sizes=[\n"
        f"{sizes}    ],\n    strides=[{strides}],{guessed}\n)\n"
    )


def _write_torchvision(levels: Levels) -> str:
    """Set the sizes themselves: its arguments give only products of sizes and ratios, and those rounded to pixels."""
    areas = "".join(f"({', '.join(_number((w * h) ** 0.5) for w, h in part)},), " for _, part in levels)
    cells = "".join(
        f"    torch.tensor([{', '.join(f'[{_number(w)}, {_number(h)}]' for w, h in part)}]),\n" for _, part in levels
    )
    return (
        "import torch\nfrom torchvision.models.detection.anchor_utils import AnchorGenerator\n\n"
        f"generator = AnchorGenerator(sizes=({areas.rstrip()}), aspect_ratios=((1.0,),) * {len(levels)})\n"
        f"sizes = [  # width, height\n{cells}]\n"
        "generator.cell_anchors = [torch.cat([-size / 2, size / 2], dim=1) for size in sizes]\n"
    )
