"""The page of a statistics version: pixel values, sizes, classes, formats and rejects, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pyarrow.compute as pc

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.statistics import CHANNELS, describe_channel
from labelmill.schemas.versions import Version
from labelmill.tasks.report.page_style import STYLE
from labelmill.tasks.statistics.facts import CLASSES_SHOWN, DatasetFacts, read_facts
from labelmill.tasks.statistics.plots import draw_bars, draw_channels
from labelmill.tasks.store import Store

_STYLE = STYLE + (
    ".plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); gap: 20px; }\n"
    ".plot { width: auto; } .plot svg { width: 100%; display: block; }\n"
    ".plot text { font-size: 11px; fill: var(--soft); }\n"
)


def build_statistics_page(store: Store, version: Version) -> str:
    """Return a self-contained HTML page over a version of a statistics table.

    Raises BadInput for a table of another kind, NotInStore when the images version it was made from was deleted.
    """
    if version.metadata.get("kind") != "statistics":
        raise BadInput(f"{version.table}: expected a table of statistics")
    [(name, number)] = version.lineage.inputs.items()
    facts = read_facts(store, store.table(name).version(number), version.metadata["split"])
    table = store.table(version.table)
    rows = table.read(version, ["status", "reason", "images", *CHANNELS])
    done = rows.filter(pc.equal(rows["status"], Status.DONE))
    counts = {channel: [sum(column) for column in zip(*done[channel].to_pylist(), strict=True)] for channel in CHANNELS}
    channels = [describe_channel(channel, counts[channel]) for channel in CHANNELS]
    split = version.metadata["split"] or "all splits"
    title = f"Statistics of {name.partition('.')[0]}, {split}"
    plots = [draw_channels(counts)]
    plots += [
        draw_bars(h.title, h.counts, _with_unit(h.low, h.unit), _with_unit(h.high, h.unit)) for h in facts.histograms
    ]
    plots.append(draw_bars("images a class, classes by size", facts.class_sizes[::-1], "largest", "smallest"))
    body = [
        f"<h1>{escape(title)}</h1>",
        _panel(
            f"{facts.done:,} of {facts.images:,} are whole; {version.table} v{version.number} of {name} v{number}",
            ("channel", "mean", "deviation", "pixels"),
            [(c.channel, f"{c.mean:.6f}", f"{c.deviation:.6f}", f"{c.pixels:,}") for c in channels],
        ),
        f'<section class="panel plots">{"".join(plots)}</section>',
        *_tables(facts),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(body)}\n</main>\n"
        "</body>\n</html>\n"
    )


def _tables(facts: DatasetFacts) -> list[str]:
    classes = [(name, f"{count:,}") for name, count in facts.classes]
    shown = classes
    caption = f"{len(classes):,} classes"
    if len(classes) > 2 * CLASSES_SHOWN:
        shown = [*classes[:CLASSES_SHOWN], ("…", ""), *classes[-CLASSES_SHOWN:]]
        caption += f", the {CLASSES_SHOWN} largest and smallest"
    return [
        _panel(caption, ("class", "images"), shown),
        _panel("Formats and modes", ("format", "mode", "images"), [(a, b, f"{n:,}") for a, b, n in facts.kinds]),
        _panel("Rejected", ("split", "reason", "images"), [(a, b, f"{n:,}") for a, b, n in facts.rejected]),
    ]


def _panel(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th class="text">{escape(cell)}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td class=text>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    none = "" if rows else '<p class="note">none</p>'
    return (
        f'<section class="panel"><p class="caption">{escape(caption)}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{none}</section>"
    )


def _with_unit(value: float, unit: str) -> str:
    return f"{value:,.4g} {unit}".strip()
