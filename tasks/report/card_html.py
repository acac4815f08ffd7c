"""The HTML of one image's card."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labelmill.schemas.images import Status
from labelmill.tasks.report.cards import Bar, Box, Card, Heat
from labelmill.tasks.report.pictures import PagePhoto

FIGURE_WIDTH_MAX_PX = 180
"""Six figures stand side by side on a wide screen; two always do."""

FIGURE_HEIGHT_MAX_PX = 210
FIGURE_WIDTH_MIN_PX = 96
CROP_SIDE_PX = 88


def format_card(card: Card) -> str:
    """Return the card of an image; every text in it is escaped."""
    row = card.row
    head = f"<h2>{escape(row.image_id)}</h2>{_tags(card)}"
    if not row.done:
        reason = f"<p><b>{escape(row.reason or Status.REJECTED)}</b>"
        return f'<article class="card"><header>{head}</header>{reason} {escape(row.detail or "")}</p></article>'
    style = f" style=\"--photo: url('{card.photo.uri}')\"" if card.photo.uri else ""
    labels = f"<div><h3>Pooled label of the whole image</h3>{format_bars(card.bars)}</div>{_crops(card)}"
    return (
        f'<article class="card"{style}><header>{head}</header><div class="figures">{_figures(card)}</div>'
        f'<div class="labels">{labels}</div></article>'
    )


def _tags(card: Card) -> str:
    row = card.row
    if not row.done:
        return '<span class="tag odd">rejected</span>'
    if row.label is None:
        return '<span class="tag">no label</span>'
    name = escape(short_name(row.label_name or f"class {row.label}"))
    pooled = card.bars[0]
    kind = "good" if pooled.class_id == row.label else "odd"
    said = f"pooled label: {escape(short_name(pooled.name))} {pooled.probability:.0%}"
    return f'<span class="tag">single label: {name}</span><span class="tag {kind}">{said}</span>'


def short_name(name: str) -> str:
    """Return the first of a class's synonyms."""
    return name.partition(",")[0].strip() or name


def _figures(card: Card) -> str:
    boxes = "".join(_box(number, crop.box) for number, (crop, _) in enumerate(card.crops, start=1))
    size = figure_size(card.photo)
    caption = "the image" + (f", with {len(card.crops)} crops" if card.crops else "")
    figures = [_figure(card.photo, size, boxes, caption)]
    if card.leaders:
        picture = f'<img src="{card.leaders}" alt="">'
        figures.append(_figure(card.photo, size, picture, "the likeliest of these classes in each cell", heat=True))
    figures += [_heat_figure(card.photo, size, heat) for heat in card.heats]
    return "".join(figures)


def _heat_figure(photo: PagePhoto, size: tuple[int, int], heat: Heat) -> str:
    name = escape(short_name(heat.name))
    picture = f'<img src="{heat.uri}" alt="heat map of {name}">'
    caption = (
        f'<span class="swatch c{heat.colour}"></span><b>{name}</b><br>leads {heat.cells} '
        f"cell{'s' if heat.cells != 1 else ''}, peak {heat.peak:.0%}"
    )
    return _figure(photo, size, picture, caption, heat=True)


def _figure(photo: PagePhoto, size: tuple[int, int], content: str, caption: str, *, heat: bool = False) -> str:
    width, height = size
    if photo.uri is None and not heat:
        content = escape(f"no photo: {photo.missing or ''}") + content
    kind = "photo heat" if heat and photo.uri else "photo none" if photo.uri is None else "photo"
    shape = f"aspect-ratio: {width} / {height}"
    return (
        f'<figure style="--width: {width}px"><div class="{kind}" style="{shape}">{content}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def figure_size(photo: PagePhoto) -> tuple[int, int]:
    """Return width and height in CSS pixels of a photo's figures."""
    aspect = photo.width / photo.height
    width = max(min(FIGURE_WIDTH_MAX_PX, FIGURE_HEIGHT_MAX_PX * aspect), FIGURE_WIDTH_MIN_PX)
    return round(width), max(round(width / aspect), 1)


def _box(number: int, box: Box) -> str:
    x1, y1, x2, y2 = box
    place = f"left: {x1:.2%}; top: {y1:.2%}; width: {x2 - x1:.2%}; height: {y2 - y1:.2%}"
    return f'<div class="box" style="{place}"><span>{number}</span></div>'


def format_bars(bars: Sequence[Bar]) -> str:
    """Return a list of classes with their probabilities as bars."""
    return f'<ul class="bars">{"".join(map(_bar, bars))}</ul>'


def _bar(bar: Bar) -> str:
    colour = "" if bar.colour is None else f' class="c{bar.colour}"'
    name = escape(bar.name)
    return (
        f'<li{colour}><span class="name" title="{name}">{escape(short_name(bar.name))}</span><span class="track">'
        f'<i style="width: {bar.probability:.1%}"></i><span>{_percent(bar.probability)}</span></span></li>'
    )


def _percent(probability: float) -> str:
    return "&lt;1%" if 0 < probability < 0.005 else f"{probability:.0%}"


def _crops(card: Card) -> str:
    pieces = []
    for number, (crop, bars) in enumerate(card.crops, start=1):
        pieces.append(
            f'<div><h3>Pooled label of crop {number}</h3><div class="crop">{_cut(card.photo, crop.box)}'
            f"<div><p>really in it: {escape(crop.content)}</p>{format_bars(bars)}</div></div></div>"
        )
    return "".join(pieces)


def _cut(photo: PagePhoto, box: Box) -> str:
    """Show a crop of the card's photo by its place alone: the photo's data is there once."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    if photo.uri is None or width <= 0 or height <= 0:
        return ""
    aspect = width * photo.width / (height * photo.height)
    shown = (CROP_SIDE_PX, CROP_SIDE_PX / aspect) if aspect >= 1 else (CROP_SIDE_PX * aspect, CROP_SIDE_PX)
    left = x1 / (1 - width) if width < 1 else 0
    top = y1 / (1 - height) if height < 1 else 0
    style = (
        f"width: {shown[0]:.0f}px; height: {shown[1]:.0f}px; background-size: {1 / width:.2%} {1 / height:.2%}; "
        f"background-position: {left:.2%} {top:.2%}"
    )
    return f'<div class="photo" style="{style}"></div>'
