"""The page of a statistics version: pixel values, sizes, classes, formats and rejects, in one file."""

from __future__ import annotations

from labelmill.schemas.errors import BadInput
from labelmill.schemas.statistics import CHANNELS, describe_channel
from labelmill.schemas.versions import Version
from labelmill.tasks.report.panels import build_panel, build_plain_page, build_plots_panel
from labelmill.tasks.statistics.facts import CLASSES_SHOWN, DatasetFacts, read_facts
from labelmill.tasks.statistics.plots import draw_bars, draw_channels
from labelmill.tasks.statistics.shard import add_up
from labelmill.tasks.store import Store


def build_statistics_page(store: Store, version: Version) -> str:
    """Return a self-contained HTML page over a version of a statistics table.

    Raises BadInput for a table of another kind, NotInStore when the images version it was made from was deleted.
    """
    if version.metadata.get("kind") != "statistics":
        raise BadInput(f"{version.table}: expected a table of statistics")
    [(name, number)] = version.lineage.inputs.items()
    facts = read_facts(store, store.table(name).version(number), version.metadata["split"])
    table = store.table(version.table)
    rows = table.read(version, ["status", *CHANNELS])
    counts = {channel: found.tolist() for channel, found in add_up(rows).items()}
    channels = [describe_channel(channel, counts[channel]) for channel in CHANNELS]
    split = version.metadata["split"] or "all splits"
    title = f"Statistics of {name.partition('.')[0]}, {split}"
    plots = [draw_channels(counts)]
    plots += [
        draw_bars(h.title, h.counts, _with_unit(h.low, h.unit), _with_unit(h.high, h.unit)) for h in facts.histograms
    ]
    plots.append(draw_bars("images a class, classes by size", facts.class_sizes[::-1], "largest", "smallest"))
    body = [
        build_panel(
            f"{facts.done:,} of {facts.images:,} are whole; {version.table} v{version.number} of {name} v{number}",
            ("channel", "mean", "deviation", "pixels"),
            [(c.channel, f"{c.mean:.6f}", f"{c.deviation:.6f}", f"{c.pixels:,}") for c in channels],
        ),
        build_plots_panel(plots),
        *_tables(facts),
    ]
    return build_plain_page(title, body)


def _tables(facts: DatasetFacts) -> list[str]:
    classes = [(name, f"{count:,}") for name, count in facts.classes]
    shown = classes
    caption = f"{len(classes):,} classes"
    if len(classes) > 2 * CLASSES_SHOWN:
        shown = [*classes[:CLASSES_SHOWN], ("…", ""), *classes[-CLASSES_SHOWN:]]
        caption += f", the {CLASSES_SHOWN} largest and smallest"
    return [
        build_panel(caption, ("class", "images"), shown),
        build_panel("Formats and modes", ("format", "mode", "images"), [(a, b, f"{n:,}") for a, b, n in facts.kinds]),
        build_panel("Rejected", ("split", "reason", "images"), [(a, b, f"{n:,}") for a, b, n in facts.rejected]),
    ]


def _with_unit(value: float, unit: str) -> str:
    return f"{value:,.4g} {unit}".strip()
