"""The page of a report over thresholds: curves, the table, the classes at one threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labelmill.tasks.report.panels import build_panel, build_plain_page, build_plots_panel
from labelmill.tasks.selection.plots import draw_over_thresholds
from labelmill.tasks.selection.report import ThresholdReport
from labelmill.tasks.statistics.plots import draw_bars

CLASSES_SHOWN = 15
"""Of the smallest classes and of the largest: a selection goes wrong at these ends."""

_Rows = Sequence[dict[str, Any]]

_HEADER = ("τ", "images", "share", "classes", "balance", "largest", "smallest", "known", "precision")


def build_report_page(report: ThresholdReport) -> str:
    """Return a self-contained HTML page over a report."""
    totals, dataset = report.totals, report.version.table.partition(".")[0]
    title = f"Pseudo labels of {dataset} by threshold"
    without = ", ".join(f"{count:,} {reason}" for reason, count in report.rejected.items())
    caption = (
        f"{report.images:,} images with a prediction in {report.labels.table} v{report.labels.number}"
        + (f", without: {without}" if without else "")
        + ". Balance is the entropy of the classes' shares over its highest value; precision is over images with a "
        "label of their own."
    )
    plots = [
        draw_over_thresholds("share of the images", [(r["threshold"], r["share"]) for r in totals], top=1, unit=".1%"),
        draw_over_thresholds(
            "precision of known labels", [(r["threshold"], r["precision"]) for r in totals], top=1, unit=".1%"
        ),
        draw_over_thresholds("balance", [(r["threshold"], r["balance"]) for r in totals], top=1, unit=".2f"),
    ]
    for threshold in _pick_thresholds(report):
        sizes = sorted((row["images"] for row in _rows_at(report, threshold)), reverse=True)
        plots.append(draw_bars(f"images a class at τ = {threshold:g}, by size", sizes, "largest", "smallest"))
    return build_plain_page(
        title,
        [
            build_panel(caption, _HEADER, [_cells(row) for row in totals]),
            build_plots_panel(plots),
            *(_class_panel(report, threshold) for threshold in _pick_thresholds(report)),
        ],
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['threshold']:g}", f"{row['images']:,}", _text(row["share"], ".1%"), f"{row['classes']:,}",
        _text(row["balance"], ".3f"), f"{row['largest']:,}", f"{row['smallest']:,}", f"{row['known']:,}",
        _text(row["precision"], ".1%"),
    )  # fmt: skip


def _text(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:{unit}}"


def _pick_thresholds(report: ThresholdReport) -> list[float]:
    """Return the lowest threshold and the middle one: before a choice, and about where it is made."""
    thresholds = [row["threshold"] for row in report.totals]
    return sorted({thresholds[0], min(thresholds, key=lambda t: (abs(t - 0.8), t))})


def _rows_at(report: ThresholdReport, threshold: float) -> _Rows:
    return [row for row in report.rows if row["threshold"] == threshold and row["class_id"] is not None]


def _class_panel(report: ThresholdReport, threshold: float) -> str:
    rows = sorted(_rows_at(report, threshold), key=lambda row: (-row["images"], row["class_id"]))
    cells = [
        (
            f"{row['class_id']}" if row["class_name"] is None else row["class_name"],
            f"{row['images']:,}", _text(row["share"], ".1%"), f"{row['known']:,}", _text(row["precision"], ".1%"),
        )
        for row in rows
    ]  # fmt: skip
    caption = f"Classes at τ = {threshold:g}"
    if len(cells) > 2 * CLASSES_SHOWN:
        caption += f": the {CLASSES_SHOWN} largest and smallest of {len(cells):,}"
        cells = [*cells[:CLASSES_SHOWN], ("…", "", "", "", ""), *cells[-CLASSES_SHOWN:]]
    return build_panel(caption, ("class", "images", "of those predicted so", "known", "precision"), cells)
