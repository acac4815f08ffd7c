"""Predict whole images by the mean of several teachers and views, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

import torch
from torch import Tensor

from labelmill.models.device_forward import make_device_classifier
from labelmill.models.teacher import Teacher
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.device_pipeline import DevicePipeline
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch, use_one_core
from labelmill.tasks.relabel.load import ImageToLabel, Loading, load_each, normalise
from labelmill.tasks.relabel.native_pass import make_native_classifier
from labelmill.tasks.stop import check_stop

Views = Literal["whole", "flip"]

Prediction = Tensor | RejectedImage
"""Probabilities (C,) float32 of an image, or why there are none."""


class Predictor(Protocol):
    """Gives the mean probabilities of images; any number of threads may call it."""

    def predict(self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch) -> list[Prediction]:
        """Return a prediction for each image, in their order. Raises WorkFailed when asked to stop."""

    def close(self) -> None:
        """End threads."""


def average_views(logits_of: Callable[[Tensor], Tensor], pixels: Tensor, views: Views) -> Tensor:
    """Return the mean probabilities (B, C) over the views of normalised images (B, 3, H, W)."""
    probabilities = logits_of(pixels).softmax(1)
    if views == "flip":
        probabilities = (probabilities + logits_of(pixels.flip(3)).softmax(1)) / 2
    return probabilities


class CpuPredictor:
    """Equal threads of one core each, which read, decode, resize and predict a batch."""

    def __init__(
        self, teachers: Sequence[Teacher], *, views: Views, batch_size: int, workers: int, max_pixels: int
    ) -> None:
        self._members = [(teacher, make_native_classifier(teacher), load_as(teacher, max_pixels)) for teacher in teachers]
        self._views, self._batch_size, self._workers = views, batch_size, workers

    def predict(self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch) -> list[Prediction]:
        """Return a prediction for each image; batches are cut at fixed places of the sequence."""

        def work(start: int) -> list[Prediction]:
            check_stop()
            use_one_core()
            found = self._predict_batch(images[start : start + self._batch_size])
            on_batch(len(found), sum(isinstance(one, RejectedImage) for one in found))
            return found

        with ThreadPoolExecutor(self._workers, thread_name_prefix="predict") as threads:
            batches = [threads.submit(work, start) for start in range(0, len(images), self._batch_size)]
            try:
                return [prediction for batch in batches for prediction in batch.result()]
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise

    def _predict_batch(self, images: Sequence[ImageToLabel]) -> list[Prediction]:
        loaded: dict[Loading, list[object]] = {}
        total: Tensor | None = None
        good: list[int] = []
        result: list[Prediction] = []
        for teacher, logits_of, loading in self._members:
            if loading not in loaded:
                loaded[loading] = list(load_each(images, loading))
            found = loaded[loading]
            if total is None:
                result = [one if isinstance(one, RejectedImage) else torch.empty(0) for one in found]
                good = [place for place, one in enumerate(found) if not isinstance(one, RejectedImage)]
            if not good:
                break
            with torch.inference_mode():
                pixels = normalise([found[place] for place in good], teacher)  # type: ignore[misc]
                probabilities = average_views(logits_of, pixels, self._views)
                total = probabilities if total is None else total + probabilities
        for row, place in enumerate(good if total is not None else ()):
            result[place] = total[row] / len(self._members)  # type: ignore[index]
        return result

    def close(self) -> None:
        """Nothing to end: threads live as long as a call."""


class DevicePredictor:
    """A GPU: one pipeline for each teacher, one after the other."""

    def __init__(
        self,
        teachers: Sequence[Teacher],
        *,
        device: str,
        views: Views,
        batch_size: int,
        workers: int,
        max_pixels: int,
    ) -> None:
        where = torch.device(device)
        self._pipelines = []
        for teacher in teachers:
            classifier = make_device_classifier(teacher.classifier, teacher.preprocessing, where)
            self._pipelines.append(
                DevicePipeline(
                    lambda pixels, classifier=classifier: (average_views(classifier, pixels, views),),
                    load_as(teacher, max_pixels),
                    device=where,
                    batch_size=batch_size,
                    workers=workers,
                )
            )

    def predict(self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch) -> list[Prediction]:
        """Return a prediction for each image; progress is that of the first teacher."""
        sums: list[Prediction] = []
        for pipeline in self._pipelines:
            found = pipeline.run(
                images, lambda values: list(values[0]), on_batch=ignore_batch if sums else on_batch
            )
            sums = [_add(one, other) for one, other in zip(sums, found, strict=True)] if sums else list(found)
        return [one if isinstance(one, RejectedImage) else one / len(self._pipelines) for one in sums]

    def close(self) -> None:
        """End the pipelines' threads."""
        for pipeline in self._pipelines:
            pipeline.close()


def _add(one: Prediction, other: Prediction) -> Prediction:
    if isinstance(one, RejectedImage):
        return one
    return other if isinstance(other, RejectedImage) else one + other


def load_as(teacher: Teacher, max_pixels: int) -> Loading:
    """Return how images are loaded for a teacher's own classifier."""
    preprocessing = teacher.preprocessing
    return Loading(size=preprocessing.native_size, interpolation=preprocessing.interpolation, max_pixels=max_pixels)
