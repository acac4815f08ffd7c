"""Panels with tables, and the page around them: one file without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labelmill.tasks.report.page_style import STYLE

_STYLE = STYLE + (
    ".plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); gap: 20px; }\n"
    ".plot { width: auto; } .plot svg { width: 100%; display: block; }\n"
    ".plot text { font-size: 11px; fill: var(--soft); }\n"
    "pre { overflow-x: auto; margin: 0; font-size: 13px; }\n"
)


def build_plain_page(title: str, body: Sequence[str]) -> str:
    """Return an HTML page of panels below a heading; `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>{''.join(body)}\n</main>\n</body>\n</html>\n"
    )


def build_panel(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a panel with a table of texts."""
    head = "".join(f'<th class="text">{escape(cell)}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td class=text>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    none = "" if rows else '<p class="note">none</p>'
    return (
        f'<section class="panel"><p class="caption">{escape(caption)}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{none}</section>"
    )


def build_text_panel(caption: str, text: str) -> str:
    """Return a panel with text as it is, to copy."""
    return f'<section class="panel"><p class="caption">{escape(caption)}</p><pre>{escape(text)}</pre></section>'


def build_plots_panel(plots: Sequence[str]) -> str:
    """Return a panel with drawings side by side."""
    return f'<section class="panel plots">{"".join(plots)}</section>'
