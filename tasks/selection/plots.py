"""Plots over thresholds, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.tasks.statistics.plots import BOTTOM, HEIGHT, TOP, WIDTH, draw_frame


def draw_over_thresholds(title: str, points: Sequence[tuple[float, float | None]], *, top: float, unit: str) -> str:
    """Return a line over thresholds from 0 to 1, from 0 to `top` high; where there is no value it is broken.

    `unit` is the format of a value, such as `.1%`.
    """
    room = HEIGHT - BOTTOM - TOP - 12
    runs: list[list[str]] = [[]]
    dots = []
    for threshold, value in points:
        if value is None:
            runs.append([])
            continue
        x, y = 6 + (WIDTH - 12) * threshold, TOP + 12 + room * (1 - value / top)
        runs[-1].append(f"{x:.1f},{y:.1f}")
        dots.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>τ = {threshold:g}: {value:{unit}}</title></circle>'
        )
    lines = "".join(f'<polyline points="{" ".join(run)}"/>' for run in runs if len(run) > 1)
    drawing = f'<g fill="none" stroke="#3b74d6" stroke-width="1.3">{lines}</g><g fill="#3b74d6">{"".join(dots)}</g>'
    return draw_frame(title, drawing, "τ = 0", "1", f"{top:{unit}}")
