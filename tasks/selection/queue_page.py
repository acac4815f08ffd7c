"""The page of a queue: the images with what they are labelled and what the teacher says."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from labelmill.schemas.images import Status
from labelmill.schemas.locations import join_location
from labelmill.tasks.report.card_html import figure_size, format_bars, short_name
from labelmill.tasks.report.cards import Bar
from labelmill.tasks.report.page_rows import PageRow
from labelmill.tasks.report.panels import build_panel, build_plain_page
from labelmill.tasks.report.pictures import read_photo
from labelmill.tasks.selection.disagreements import Queue, read_likeliest
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import Store
from labelmill.tasks.store.views import name_view

_PAIRS_SHOWN = 30


def build_queue_page(store: Store, queue: Queue, *, shown: int, image_root: str | Path | None = None) -> str:
    """Return a self-contained HTML page: which classes are taken for which, and the first images of the queue."""
    rows = queue.rows.slice(0, shown).to_pylist()
    ids = [row["image_id"] for row in rows]
    likeliest = read_likeliest(store, queue, ids)
    places = _find_places(store, queue, ids, image_root)
    cards = []
    for row in rows:
        check_stop()
        cards.append(_card(row, places.get(row["image_id"], (None, None)), likeliest[row["image_id"]]))
    dataset = queue.version.table.partition(".")[0]
    total = queue.rows.num_rows
    caption = (
        f"{total:,} images of {queue.images.table} v{queue.images.number} are labelled otherwise than "
        f"{queue.labels.table} v{queue.labels.number} is sure of; {len(rows):,} are shown, the surest first"
    )
    pairs = [(label, suggested, f"{images:,}") for label, suggested, images in _count_pairs(queue)]
    panel = build_panel(caption, ("label", "the teacher says", "images"), pairs[:_PAIRS_SHOWN])
    return build_plain_page(f"Doubted labels of {dataset}", [panel, *cards])


def _count_pairs(queue: Queue) -> list[tuple[str, str, int]]:
    groups = queue.rows.group_by(["label_name", "suggested_name"]).aggregate([([], "count_all")]).to_pylist()
    found = [(str(g["label_name"]), str(g["suggested_name"]), int(g["count_all"])) for g in groups]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _find_places(
    store: Store, queue: Queue, image_ids: list[str], image_root: str | Path | None
) -> dict[str, tuple[str | None, str | None]]:
    """Return where each image lies, and its sha256."""
    roots: dict[str, str] = dict(queue.images.metadata["roots"])
    if image_root is not None:
        roots = dict.fromkeys(roots, str(image_root))
    with store.connect() as sql:
        found = sql.execute(
            f"SELECT image_id, split, uri, sha256 FROM {name_view(queue.images)} "  # noqa: S608 - a checked name
            "WHERE image_id IN (SELECT unnest($ids::VARCHAR[]))",
            {"ids": image_ids},
        ).fetchall()
    return {
        image_id: (join_location(roots[split], uri) if split in roots else None, sha256)
        for image_id, split, uri, sha256 in found
    }


def _card(row: dict[str, Any], place: tuple[str | None, str | None], likeliest: list[tuple[str, float]]) -> str:
    path, sha256 = place
    label = row["label_name"] or f"class {row['label']}"
    photo = read_photo(
        PageRow(
            row=row["rank"], image_id=row["image_id"], status=Status.DONE, reason=None, detail=None,
            label=row["label"], label_name=label, path=path, sha256=sha256,
        )
    )  # fmt: skip
    suggested = escape(short_name(row["suggested_name"] or "a class without name"))
    width, height = figure_size(photo)
    missing = "" if photo.uri else escape(f"no photo: {photo.missing or ''}")
    style = f" style=\"--photo: url('{photo.uri}')\"" if photo.uri else ""
    bars = format_bars([Bar(class_id=0, name=name, probability=probability) for name, probability in likeliest])
    return (
        f'<article class="card"{style}><header><h2>{row["rank"]}. {escape(row["image_id"])}</h2>'
        f'<span class="tag">label: {escape(short_name(label))}, {row["label_probability"]:.1%}</span>'
        f'<span class="tag odd">the teacher says {suggested}, {row["confidence"]:.1%}</span></header>'
        f'<div class="figures"><figure style="--width: {width}px"><div class="photo{"" if photo.uri else " none"}" '
        f'style="aspect-ratio: {width} / {height}">{missing}</div></figure></div>'
        f'<div class="labels"><div>{bars}</div></div></article>'
    )
