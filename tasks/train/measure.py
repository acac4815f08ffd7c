"""The accuracy of a student on images that it does not learn from."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from labelmill.models.preprocessing import Preprocessing
from labelmill.tasks.images.decode_image import Pixels
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.load import ImageToLabel, Loading, load_each
from labelmill.tasks.stop import check_stop
from labelmill.tasks.train.examples import NO_CLASS, Examples

BATCH_SIZE = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Images whose likeliest class is their own, or one of theirs, of those that were looked at.

    unlabelled: images without a class of the student's; rejected: those that could not be read, by reason.
    """

    right: int
    images: int
    unlabelled: int
    rejected: dict[str, int]

    @property
    def value(self) -> float:
        """The share of right ones, 0 without images."""
        return self.right / self.images if self.images else 0.0


def measure(
    model: nn.Module, examples: Examples, preprocessing: Preprocessing, *, max_pixels: int, workers: int = 0
) -> Accuracy:
    """Return the accuracy of a model, on its own device, on images that are resized whole as a teacher sees them.

    The model is left in the mode it had. Raises WorkFailed when the process was asked to stop.
    """
    loading = Loading(size=preprocessing.native_size, interpolation=preprocessing.interpolation, max_pixels=max_pixels)
    places = [place for place in range(len(examples)) if _answers(examples, place)]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    reasons = Counter(examples.rejected)
    right = images = 0
    for start, batch in _load_ahead(examples, places, loading, workers or os.cpu_count() or 1):
        pixels = []
        answers = []
        for place, one in zip(places[start : start + BATCH_SIZE], batch, strict=True):
            if isinstance(one, RejectedImage):
                reasons[one.reason.value] += 1
            else:
                pixels.append(one)
                answers.append(_answers(examples, place))
        if pixels:
            batch_images = normalise_batch(torch.from_numpy(np.stack(pixels)).to(device), preprocessing)
            with torch.no_grad():
                best = model(batch_images).argmax(1).tolist()
            right += sum(one in answer for one, answer in zip(best, answers, strict=True))
            images += len(pixels)
    model.train(was_training)
    unlabelled = len(examples) - len(places)
    return Accuracy(right=right, images=images, unlabelled=unlabelled, rejected=dict(sorted(reasons.items())))


def _load_ahead(
    examples: Examples, places: list[int], loading: Loading, workers: int
) -> Iterator[tuple[int, list[Pixels | RejectedImage]]]:
    """Yield batches in order, a few ahead of the model and no more: a test set may be larger than memory."""

    def load(start: int) -> list[Pixels | RejectedImage]:
        check_stop()
        rows = [examples.row(place) for place in places[start : start + BATCH_SIZE]]
        return load_each(
            [ImageToLabel(path=row["path"], sha256=row["sha256"], bytes=row["bytes"]) for row in rows], loading
        )

    with ThreadPoolExecutor(workers, thread_name_prefix="measure") as threads:
        waiting: deque[tuple[int, Future[list[Pixels | RejectedImage]]]] = deque()
        for start in range(0, len(places), BATCH_SIZE):
            waiting.append((start, threads.submit(load, start)))
            if len(waiting) > workers + 1:
                first, batch = waiting.popleft()
                yield first, batch.result()
        for first, batch in waiting:
            yield first, batch.result()


def _answers(examples: Examples, place: int) -> frozenset[int]:
    several = examples.several.get(place)
    if several is not None:
        return several
    own = int(examples.classes[place])
    return frozenset() if own == NO_CLASS else frozenset([own])


def normalise_batch(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Return (B, 3, H, W) float32 of (B, H, W, 3) uint8, on their device, channels last in memory."""
    scale, shift = (torch.tensor(values, device=pixels.device) for values in preprocessing.scale_and_shift())
    return (pixels.float() * scale + shift).permute(0, 3, 1, 2)
