"""Batches of training, each a function of its step: any step can be made anew, in any process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.augmentation.pixel_ops import use_one_thread
from labelmill.tasks.images.decode_image import Pixels
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.train.examples import Ids
from labelmill.tasks.train.order import ShuffledOrder
from labelmill.tasks.train.pixels import PixelSource
from labelmill.tasks.train.views import FittedViews, SeenView

TRIES = 16
"""Images that cannot be read are passed over; so many in a row mean that something else is wrong."""

REJECTED = "rejected"

RawBatch = dict[str, Tensor]
"""By the names of TrainingBatch: pixels (B, S, S, 3) uint8 and labels; `rejected`: (), images that were passed over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Images of which each step takes `count`, as views of one or two policies.

    places: what an epoch holds, (N,) int64 places of images, some perhaps several times; ids: the images', by place;
    views: by the name that the batch has for them; labels_of: turns places and boxes of the first views into labels;
    steps: those that have these images, by default all.
    """

    pixels: PixelSource
    places: Ids
    ids: Sequence[str]
    count: int
    views: dict[str, FittedViews]
    order: ShuffledOrder
    labels_name: str | None = None
    labels_of: Callable[[Ids, Tensor], Tensor] | None = None
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
        made: dict[str, list[SeenView]] = {name: [] for name in self.views}
        found = []
        passed_over = 0
        for chosen, epoch in zip(*self.order.at(first, last), strict=True):
            entry, image, tried = self._read(int(chosen))
            place = int(self.places[entry])
            passed_over += tried
            found.append(place)
            visit = int(epoch) * self.copies_most + int(self.copy_numbers[entry])
            for name, views in self.views.items():
                made[name].append(views.make(image, epoch=visit, image_id=self.ids[place]))
        batch = {name: torch.from_numpy(np.stack([view.pixels for view in views])) for name, views in made.items()}
        if self.labels_name and self.labels_of:
            boxes = torch.tensor([view.box for view in next(iter(made.values()))])
            batch[self.labels_name] = self.labels_of(np.array(found, np.int64), boxes)
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
class ClassLabels:
    """Labels of images by place: ids (N,) int64, or probabilities (N, C) float32."""

    values: Tensor

    def __call__(self, places: Ids, boxes: Tensor) -> Tensor:
        """Return the labels of places, whatever the boxes."""
        return self.values[torch.from_numpy(places)]


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledLabels:
    """Labels of crops, pooled from the label maps of their images: `rows` (N,) int64 are the maps' by place."""

    maps: LabelMaps
    rows: Tensor
    mode: str

    def __call__(self, places: Ids, boxes: Tensor) -> Tensor:
        """Return (B, C) float32 probabilities for boxes (B, 4), x1 y1 x2 y2 in [0, 1]."""
        return self.maps.pool(self.rows[torch.from_numpy(places)], boxes, self.mode)


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
    return iter(loader)
