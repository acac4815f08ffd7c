"""What a page shows of each image, computed from its label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.report.page_rows import LeadingClass, PageRow
from labelmill.tasks.report.pictures import COLOURS, PagePhoto, draw_heat, draw_leaders, read_photo

BARS = 5
"""Classes of a pooled label that are shown."""

CROP_BARS = 3

CANDIDATES = 16
"""Of the classes that lead most cells, those weighed for a heat map: what leads fewer is noise."""

BOXES_AT_ONCE = 256
"""Bounds the memory of pooling cell by cell, also for a teacher with many classes."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCrop:
    """A crop to show with its pooled label: x1 y1 x2 y2 in [0, 1] of the image, and what is said to be in it."""

    box: Box
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A class of a pooled label with its probability; `colour` is the place in COLOURS of its heat map."""

    class_id: int
    name: str
    probability: float
    colour: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Heat:
    """The heat map of a leading class; `cells` it leads, `peak` its highest probability in a cell."""

    name: str
    uri: str
    colour: int
    cells: int
    peak: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Everything that a page says about an image; a rejected one has no heat maps and no labels."""

    row: PageRow
    photo: PagePhoto
    leaders: str | None = None
    heats: tuple[Heat, ...] = ()
    bars: tuple[Bar, ...] = ()
    crops: tuple[tuple[PageCrop, tuple[Bar, ...]], ...] = ()


def make_card(maps: LabelMaps, row: PageRow, leading: Sequence[LeadingClass], crops: Sequence[PageCrop] = ()) -> Card:
    """Pool an image's label over the whole, over each cell and over the crops, by the default pooling."""
    if not row.done:
        return Card(row=row, photo=PagePhoto(missing="rejected"))
    shown, cells = _weigh_leading(maps, row, leading[:CANDIDATES])
    colours = {c.class_id: place for place, c in enumerate(shown)}
    boxes = torch.tensor([(0.0, 0.0, 1.0, 1.0), *(crop.box for crop in crops)])
    labels = maps.pool(torch.full((len(boxes),), row.row, dtype=torch.int64), boxes)
    return Card(
        row=row,
        photo=read_photo(row),
        leaders=draw_leaders(cells, COLOURS[: len(shown)]),
        heats=tuple(
            Heat(
                name=c.name,
                uri=draw_heat(cells[place], COLOURS[place]),
                colour=place,
                cells=c.cells,
                peak=float(cells[place].max()),
            )
            for place, c in enumerate(shown)
        ),
        bars=_bars(maps, labels[0], BARS, colours),
        crops=tuple(
            (crop, _bars(maps, label, CROP_BARS, colours)) for crop, label in zip(crops, labels[1:], strict=True)
        ),
    )


def _weigh_leading(
    maps: LabelMaps, row: PageRow, candidates: Sequence[LeadingClass]
) -> tuple[list[LeadingClass], npt.NDArray[np.float32]]:
    """Return the leading classes with most probability over all cells, as many as there are colours, and (K, H, W)."""
    cells = pool_cells(maps, row.row, [c.class_id for c in candidates])
    order = np.argsort(-cells.sum((1, 2)), kind="stable")[: len(COLOURS)]
    return [candidates[place] for place in order], cells[order]


def pool_cells(maps: LabelMaps, row: int, class_ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return (K, H, W) float32: what the label of a crop of just that cell gives to each of K classes."""
    height, width = maps.metadata.grid
    boxes = torch.tensor(
        [(x / width, y / height, (x + 1) / width, (y + 1) / height) for y in range(height) for x in range(width)]
    )
    pieces = []
    for start in range(0, len(boxes), BOXES_AT_ONCE):
        some = boxes[start : start + BOXES_AT_ONCE]
        labels = maps.pool(torch.full((len(some),), row, dtype=torch.int64), some)
        pieces.append(labels[:, list(class_ids)])
    cells: npt.NDArray[np.float32] = torch.cat(pieces).T.reshape(-1, height, width).numpy()
    return cells


def _bars(maps: LabelMaps, label: torch.Tensor, count: int, colours: dict[int, int]) -> tuple[Bar, ...]:
    probabilities, ids = label.topk(min(count, len(label)))
    listed = maps.metadata.classes
    return tuple(
        Bar(
            class_id=class_id,
            name=listed.classes[class_id].name if listed else f"class {class_id}",
            probability=probability,
            colour=colours.get(class_id),
        )
        for probability, class_id in zip(probabilities.tolist(), ids.tolist(), strict=True)
    )
