"""Plots of anchors: IoU by their number, and the boxes with the anchors among them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from labelmill.models.box_sizes import Sizes
from labelmill.tasks.statistics.plots import BOTTOM, HEIGHT, TOP, WIDTH, draw_frame

DOTS = 1500
"""Boxes in the scatter: enough to show where they crowd, few enough for a page of 100 kB."""

_SIDE, _MARGIN = 380, 30


def draw_curve(title: str, points: Sequence[tuple[int, float]], chosen: int) -> str:
    """Return a line over the numbers of anchors, with a ring at the chosen one."""
    low, high = points[0][0], points[-1][0]
    floor, top = min(value for _, value in points), max(value for _, value in points)
    span, room = (top - floor) or 1.0, HEIGHT - BOTTOM - TOP - 12

    def place(k: int, value: float) -> tuple[float, float]:
        x = 6 + (WIDTH - 12) * ((k - low) / (high - low) if high > low else 0.5)
        return x, TOP + 12 + room * (1 - (value - floor) / span)

    at = [place(*point) for point in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if k == chosen else 3}" fill-opacity="{int(k != chosen)}" '
        f'fill="#3b74d6" stroke="#3b74d6"><title>k = {k}: {value:.4f}</title></circle>'
        for (k, value), (x, y) in zip(points, at, strict=True)
    )
    drawing = f'<polyline fill="none" stroke="#3b74d6" stroke-width="1.3" points="{line}"/>{dots}'
    return draw_frame(title, drawing, f"k = {low}, {floor:.4f}", f"k = {high}", f"{top:.4f}")


def draw_sizes(title: str, boxes: Sizes, anchors: Sizes, given: Sizes | None, *, seed: int) -> str:
    """Return box sizes as dots over width and height, both by doublings, with the anchors as squares.

    `boxes` (N, 2) are drawn from when there are many; anchors that were `given` to compare with are rings.
    """
    dots = boxes if len(boxes) <= DOTS else np.random.default_rng(seed).choice(boxes, DOTS, replace=False)
    shown = np.concatenate([dots, anchors, *([] if given is None else [given])])
    low, high = np.floor(np.log2(shown.min())), np.ceil(np.log2(shown.max()))
    step = (_SIDE - 2 * _MARGIN) / max(high - low, 1)

    def place(sizes: Sizes) -> list[tuple[float, float]]:
        at = (np.log2(sizes) - low) * step
        return [(_MARGIN + float(x), _SIDE - _MARGIN - float(y)) for x, y in at]

    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>' for x, y in place(dots)]
    squares = [
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"><title>{w:.1f} × {h:.1f}</title></rect>'
        for (x, y), (w, h) in zip(place(anchors), anchors, strict=True)
    ]
    rings = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>' for x, y in ([] if given is None else place(given))]
    drawing = (
        f'{_draw_axes(int(low), int(high), step)}<g fill="var(--bar)" fill-opacity="0.5">{"".join(marks)}</g>'
        f'<g fill="#d64545">{"".join(squares)}</g>'
        f'<g fill="none" stroke="#2f9e5b" stroke-width="2">{"".join(rings)}</g>'
    )
    return (
        f'<figure class="plot"><svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="{escape(title)}">{drawing}'
        f"</svg><figcaption><b>{escape(title)}</b></figcaption></figure>"
    )


def _draw_axes(low: int, high: int, step: float) -> str:
    """Return lines and texts at doublings, about eight of them."""
    ground, lines = _SIDE - _MARGIN, []
    for power in range(low, high + 1, max(1, round((high - low) / 8))):
        at = (power - low) * step
        x, y = _MARGIN + at, ground - at
        lines.append(
            f'<line x1="{x:.1f}" y1="{_MARGIN}" x2="{x:.1f}" y2="{ground}" stroke="var(--line)"/>'
            f'<line x1="{_MARGIN}" y1="{y:.1f}" x2="{ground}" y2="{y:.1f}" stroke="var(--line)"/>'
            f'<text x="{x:.1f}" y="{_SIDE - 14}" text-anchor="middle">{2.0**power:g}</text>'
            f'<text x="{_MARGIN - 4}" y="{y + 4:.1f}" text-anchor="end">{2.0**power:g}</text>'
        )
    return "".join(lines)
