"""Batches of training, each a function of its step: any step can be made anew, in any process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.augmentation.pixel_ops import use_one_thread
from labelmill.tasks.images.decode_image import Pixels
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.start_shielded import shielded_from_interrupts
from labelmill.tasks.train.examples import Ids
from labelmill.tasks.train.order import ShuffledOrder
from labelmill.tasks.train.pixels import PixelSource
from labelmill.tasks.train.views import Box, FittedViews

TRIES = 16
"""Images that cannot be read are passed over; so many in a row mean that something else is wrong."""

REJECTED = "rejected"

RawBatch = dict[str, Tensor]
"""By the names of TrainingBatch: pixels (B, S, S, 3) uint8 and labels; `rejected`: (), images that were passed over."""


class ImageLabels(Protocol):
    """Labels of images; goes to other processes."""

    def of(self, places: Ids) -> Tensor:
        """Return (B,) int64 or (B, C) float32 for places (B,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassLabels:
    """One class for each image: ids (N,) int64."""

    values: Tensor

    def of(self, places: Ids) -> Tensor:
        """See ImageLabels."""
        return self.values[torch.from_numpy(places)]


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledLabels:
    """Labels of crops, pooled from the label maps of their images: `rows` (N,) int64 are the maps' by place."""

    maps: LabelMaps
    rows: Tensor
    mode: str

    def pool(self, places: Ids, boxes: Tensor) -> Tensor:
        """Return (B, C) float32 probabilities for boxes (B, 4), x1 y1 x2 y2 in [0, 1] of the images."""
        return self.maps.pool(self.rows[torch.from_numpy(places)], boxes, self.mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Images of which each step takes `count`, as views of one or two policies.

    places: what an epoch holds, (N,) int64 places of images, some perhaps several times; ids: the images', by place;
    views: by the name that the batch has for them; labels: of images, with `labels_name` in the batch, or pooled: of
    what the views show; steps: those that have these images, by default all.
    """

    pixels: PixelSource
    places: Ids
    ids: Sequence[str]
    count: int
    views: dict[str, FittedViews]
    order: ShuffledOrder
    labels: ImageLabels | None = None
    labels_name: str = "labels"
    pooled: PooledLabels | None = None
    steps: int | None = None
    copy_numbers: Ids = field(init=False)
    copies_most: int = field(init=False)

    def __post_init__(self) -> None:
        """Number the copies of an image, whose views shall differ."""
        order = np.argsort(self.places, kind="stable")
        ordered = self.places[order]
        firsts = np.searchsorted(ordered, ordered)
        numbers = np.empty_like(self.places)
        numbers[order] = np.arange(len(ordered)) - firsts
        object.__setattr__(self, "copy_numbers", numbers)
        object.__setattr__(self, "copies_most", int(numbers.max()) + 1)

    def take(self, first: int, last: int) -> RawBatch:
        """Return the images `first` to `last` of all its epochs."""
        made: dict[str, list[Pixels]] = {name: [] for name in self.views}
        boxes: list[Box] = []
        found = []
        passed_over = 0
        for chosen, epoch in zip(*self.order.at(first, last), strict=True):
            entry, image, tried = self._read(int(chosen))
            place = int(self.places[entry])
            passed_over += tried
            found.append(place)
            visit, name_of = int(epoch) * self.copies_most + int(self.copy_numbers[entry]), self.ids[place]
            for name, views in self.views.items():
                if self.pooled is None:
                    made[name].append(views.make(image, epoch=visit, image_id=name_of))
                else:
                    pixels, box = views.make_with_box(image, epoch=visit, image_id=name_of)
                    made[name].append(pixels)
                    boxes.append(box)
        batch = {name: torch.from_numpy(np.stack(views)) for name, views in made.items()}
        places = np.array(found, np.int64)
        if self.pooled is not None:
            batch["labels"] = self.pooled.pool(places, torch.tensor(boxes))
        elif self.labels is not None:
            batch[self.labels_name] = self.labels.of(places)
        return batch | {REJECTED: torch.tensor(passed_over)}

    def _read(self, entry: int) -> tuple[int, Pixels, int]:
        """Return an entry that can be read, from the given one on, its pixels, and how many could not be."""
        for tried in range(TRIES):
            chosen = (entry + tried) % len(self.places)
            try:
                return chosen, self.pixels.read(int(self.places[chosen])), tried
            except RejectedImage as rejected:
                reason = rejected
        raise WorkFailed(f"{TRIES} images in a row could not be read, the last: {reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatches(Dataset[RawBatch]):
    """What one of several processes sees in each step: its share of every stream's images."""

    streams: tuple[Stream, ...]
    rank: int = 0
    ranks: int = 1

    def __getitem__(self, step: int) -> RawBatch:
        use_one_thread()  # a process of its own may have begun here
        batch: RawBatch = {REJECTED: torch.tensor(0)}
        for stream in self.streams:
            if stream.steps is not None and step >= stream.steps:
                continue
            share = stream.count // self.ranks
            first = step * stream.count + self.rank * share
            taken = stream.take(first, first + share)
            batch |= taken | {REJECTED: batch[REJECTED] + taken[REJECTED]}
        return batch


def load_batches(batches: StepBatches, *, start: int, stop: int, workers: int, pin: bool) -> Iterator[RawBatch]:
    """Yield the batches of the steps `start` to `stop`, made ahead of time by `workers` processes, by none when 0."""
    workers = min(workers, stop - start)  # none are started for a run that was done
    loader: DataLoader[RawBatch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=pin,
        # Prefect has threads in this process: what a fork makes of them is not defined.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    with shielded_from_interrupts():
        return iter(loader)
