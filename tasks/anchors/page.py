"""The page of an anchors version: how many anchors, where they lie among the boxes, what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from labelmill.models.box_sizes import Sizes
from labelmill.schemas.versions import Version
from labelmill.tasks.anchors.plots import draw_curve, draw_sizes
from labelmill.tasks.report.panels import build_panel, build_plain_page, build_plots_panel, build_text_panel

CLASSES_SHOWN = 40

RECALL = "best possible recall"

Rows = Sequence[Mapping[str, Any]]


def build_anchors_page(
    version: Version, rows: Rows, boxes: Sizes, *, classes: pa.Table, positives: pa.Table | None, texts: dict[str, str]
) -> str:
    """Return a self-contained HTML page over a version's rows.

    `boxes` (N, 2) are the sizes that were clustered, `classes` and `positives` the tables beside, `texts` those for
    trainers by file name.
    """
    meta = version.metadata
    chosen, given = pick_set(rows, meta["k"], "clustered"), pick_set(rows, None, "given")
    height, width = meta["input_size"]
    title = f"{meta['k']} anchors of {version.table.partition('.')[0]}, {meta['split'] or 'all splits'}"
    clustered = [row for row in rows if row["source"] == "clustered" and row["anchor"] == 0]
    plots = [
        draw_sizes(
            "width and height in the input: boxes, anchors" + (", those given as rings" if given else ""),
            boxes, as_sizes(chosen), as_sizes(given) if given else None, seed=0,
        )
    ]  # fmt: skip
    if len(clustered) > 1:
        for measure, name in (("mean_iou", "mean best IoU by the number of anchors"), ("best_possible_recall", RECALL)):
            plots.append(draw_curve(name, [(row["k"], row[measure]) for row in clustered], meta["k"]))
    said = (
        f"{version.table} v{version.number}: {meta['boxes']:,} boxes at {width} × {height} pixels, {meta['resize']}; "
        f"mean best IoU {chosen[0]['mean_iou']:.4f}, {RECALL} {chosen[0]['best_possible_recall']:.4f}, "
        f"fitness {chosen[0]['fitness']:.4f}"
    )
    panels = [_list_anchors(said, chosen)]
    if given:
        panels.append(_list_anchors(f"Given to compare with: mean best IoU {given[0]['mean_iou']:.4f}", given))
    panels += [build_plots_panel(plots), _list_sets(rows)]
    if positives is not None:
        panels.append(_list_positives(positives))
    panels.append(_list_classes(classes))
    left_out = [(reason, f"{count:,}") for reason, count in meta["rejected"].items()]
    panels.append(build_panel("Boxes left out", ("reason", "boxes"), left_out))
    return build_plain_page(title, [*panels, *(build_text_panel(name, text) for name, text in texts.items())])


def pick_set(rows: Rows, k: int | None, source: str) -> list[Mapping[str, Any]]:
    """Return the rows of one set, in the order of its anchors."""
    return [row for row in rows if row["source"] == source and k in (None, row["k"])]


def as_sizes(rows: Rows) -> Sizes:
    """Return (K, 2) pixels of a set's rows."""
    return np.array([(row["w"], row["h"]) for row in rows], np.float64)


def _list_anchors(caption: str, rows: Rows) -> str:
    cells = [
        (
            f"{row['w']:.1f}", f"{row['h']:.1f}", "" if row["stride_px"] is None else str(row["stride_px"]),
            f"{row['boxes']:,}", "" if row["cluster_iou"] is None else f"{row['cluster_iou']:.4f}",
        )
        for row in rows
    ]  # fmt: skip
    return build_panel(caption, ("width", "height", "stride", "boxes", "their mean IoU"), cells)


def _list_sets(rows: Rows) -> str:
    cells = [
        (
            str(row["k"]),
            row["source"],
            *(f"{row[name]:.4f}" for name in ("mean_iou", "best_possible_recall", "fitness")),
        )
        for row in rows
        if row["anchor"] == 0
    ]
    return build_panel("All sets", ("k", "source", "mean best IoU", RECALL, "fitness"), cells)


def _list_classes(classes: pa.Table) -> str:
    """List the classes that are served worst first; of many the worst and the best."""
    rows = sorted(classes.to_pylist(), key=lambda row: row["mean_iou"])
    cells = [
        (
            row["class_name"] or ("none" if row["class_id"] is None else str(row["class_id"])), f"{row['boxes']:,}",
            f"{row['mean_iou']:.4f}", f"{row['best_possible_recall']:.4f}",
        )
        for row in rows
    ]  # fmt: skip
    shown = cells
    if len(cells) > 2 * CLASSES_SHOWN:
        shown = [*cells[:CLASSES_SHOWN], ("…", "", "", ""), *cells[-CLASSES_SHOWN:]]
    return build_panel(
        f"{len(cells):,} classes, the worst served first",
        ("class", "boxes", "mean best IoU", RECALL),
        shown,
    )


def _list_positives(positives: pa.Table) -> str:
    cells = [
        (
            row["source"], {"iou": "IoU", "atss": "ATSS"}[row["rule"]],
            f"{row['from_px']:g} to {row['to_px']:g}" if row["to_px"] else f"{row['from_px']:g} and more",
            f"{row['boxes']:,}", f"{row['positives_a_box']:.2f}", f"{row['without']:,}",
        )
        for row in positives.to_pylist()
    ]  # fmt: skip
    header = ("anchors", "rule", "size of the box, pixels", "boxes", "anchors that learn it", "boxes none learns")
    return build_panel("What anchors would learn, by the size of boxes", header, cells)
