"""Build the page of a label maps version: what it is, and its images with their heat maps and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.report.card_html import format_card
from labelmill.tasks.report.cards import PageCrop, make_card
from labelmill.tasks.report.page_rows import choose_rows, read_leading_classes, read_page_rows
from labelmill.tasks.report.page_style import STYLE
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import Store
from labelmill.tasks.summarise import count_statuses

IMAGES_SHOWN = 48
"""About 2 MB of page and a few seconds of work."""

_HOW_TO_READ = (
    "Each image shows the photo, then which of its leading classes is likeliest in each cell, then a map for each of "
    "these classes: the stronger the colour, the higher the probability that the label of a crop of just that cell "
    "gives to the class. The bars are pooled labels: what a trainer gets for the whole image, or for a crop of it."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageTable:
    """A table above the images: numbers of the caller, and a `note` in words.

    With `total` the last row sums up the others.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: bool = False
    note: str = ""


def build_page(
    store: Store,
    table: str,
    *,
    version: int | None = None,
    images: int = IMAGES_SHOWN,
    image_root: str | Path | None = None,
    crops: Mapping[str, Sequence[PageCrop]] | None = None,
    title: str | None = None,
    tables: Sequence[PageTable] = (),
) -> str:
    """Return a self-contained HTML page over a version of a label maps table, the latest by default.

    `images` bounds how many are shown, evenly spread over the version, rejected ones last. Photos are read from where
    they were ingested, or below `image_root`. `crops` are shown with their pooled labels, by image id.

    Raises NotInStore or BadInput when there is no such table of label maps.
    """
    maps = LabelMaps(store, table, version)
    done, rejected = choose_rows(store, maps.version, images)
    rows = read_page_rows(store, maps.version, [*done, *rejected], image_root=image_root)
    leading = read_leading_classes(store, maps.version, [row.image_id for row in rows if row.done])
    cards = []
    for row in rows:
        check_stop()
        shown = (crops or {}).get(row.image_id, ())
        cards.append(format_card(make_card(maps, row, leading.get(row.image_id, ()), shown)))
    name = title or f"Label maps of {table}"
    body = [f"<h1>{escape(name)}</h1>", _facts(store, maps, len(rows)), *map(_table, tables)]
    return _document(name, "\n".join([*body, f'<p class="soft lead">{_HOW_TO_READ}</p>', *cards]))


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _facts(store: Store, maps: LabelMaps, shown: int) -> str:
    version, meta = maps.version, maps.metadata
    done, rejected = count_statuses(store, version.table, version.number)
    total = done + sum(rejected.values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
    (height, width), (tall, wide) = meta.grid, meta.input_size
    facts = {
        "table": f"{version.table}, version {version.number}",
        "images": f"{total:,}, of which {done:,} have a map{f' ({reasons})' if reasons else ''}; {shown:,} shown here",
        "teacher": f"{meta.teacher.get('name', 'not named')}, {meta.num_classes:,} classes",
        "maps": f"{height}×{width} cells (down × across), top {meta.top_k}, of images resized to {tall}×{wide} pixels",
        "temperature": f"{meta.temperature:g}",
    }
    lines = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return f'<section class="panel"><dl class="facts">{lines}</dl></section>'


def _table(table: PageTable) -> str:
    kinds = ["" if _is_numeric(column) else ' class="text"' for column in zip(*table.rows, strict=True)]
    head = "".join(f"<th{k}>{escape(cell)}</th>" for k, cell in zip(kinds, table.header, strict=True))
    rows = []
    for number, row in enumerate(table.rows, start=1):
        kind = ' class="total"' if table.total and number == len(table.rows) else ""
        cells = "".join(f"<td{k}>{escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True))
        rows.append(f"<tr{kind}>{cells}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section class="panel"><p class="caption">{escape(table.caption)}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{note}</section>"
    )


def _is_numeric(column: Sequence[str]) -> bool:
    return all(cell.strip("%").replace(",", "").replace(".", "").isdigit() for cell in column)
