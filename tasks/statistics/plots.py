"""Plots as inline SVG: no script, no file beside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, BOTTOM, TOP = 380, 150, 22, 8

_COLOURS = {"red": "#d64545", "green": "#2f9e5b", "blue": "#3b74d6"}


def draw_bars(title: str, counts: Sequence[int], low: str, high: str) -> str:
    """Return columns of counts with the values at both ends below."""
    top = max(counts, default=0) or 1
    step = WIDTH / max(len(counts), 1)
    room = HEIGHT - BOTTOM - TOP
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{TOP + room * (1 - count / top):.1f}" width="{max(step - 1, 0.5):.1f}" '
        f'height="{room * count / top:.1f}"><title>{count:,}</title></rect>'
        for place, count in enumerate(counts)
    )
    return draw_frame(title, f'<g fill="var(--bar)">{bars}</g>', low, high, f"{top:,}")


def draw_channels(counts: Mapping[str, Sequence[int]]) -> str:
    """Return a line for each channel over its 256 values."""
    top = max((max(values, default=0) for values in counts.values()), default=0) or 1
    room = HEIGHT - BOTTOM - TOP
    lines = []
    for channel, values in counts.items():
        points = " ".join(
            f"{value * WIDTH / 255:.1f},{TOP + room * (1 - count / top):.1f}" for value, count in enumerate(values)
        )
        lines.append(f'<polyline fill="none" stroke="{_COLOURS[channel]}" stroke-width="1.3" points="{points}"/>')
    return draw_frame("pixel values by channel", "".join(lines), "0", "255", f"{top:,} pixels")


def draw_frame(title: str, drawing: str, low: str, high: str, top: str) -> str:
    """Return a drawing above a line, with the values at its ends below and the highest one above."""
    line = HEIGHT - BOTTOM
    return (
        f'<figure class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{drawing}<line x1="0" y1="{line}" x2="{WIDTH}" y2="{line}" stroke="var(--line)"/>'
        f'<text x="0" y="{HEIGHT - 6}">{escape(low)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{escape(high)}</text>'
        f'<text x="{WIDTH}" y="{TOP + 6}" text-anchor="end" class="top">{escape(top)}</text></svg>'
        f"<figcaption><b>{escape(title)}</b></figcaption></figure>"
    )
