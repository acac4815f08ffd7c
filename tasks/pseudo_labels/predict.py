"""Predict whole images by the mean of several teachers and views, on CPU threads that share the cores equally."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from labelmill.models.fast_forward import FastModel, make_fast
from labelmill.models.teacher import Teacher
from labelmill.schemas.locations import is_object_url
from labelmill.tasks.images.decode_image import Pixels
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.objects.client import in_parallel
from labelmill.tasks.pseudo_labels.prediction import Predicted, average_views, find_facts, read_predictions
from labelmill.tasks.pseudo_labels.settings import PredictionSettings
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch, use_one_core
from labelmill.tasks.relabel.load import ImageToLabel, Loading, load_at_sizes, normalise
from labelmill.tasks.stop import check_stop

WIDTH = 3
"""The axis to mirror of images (B, 3, H, W)."""


class Predictor(Protocol):
    """Teachers on the devices that run them; one thread may call it at a time."""

    def predict(self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch) -> list[Predicted]:
        """Return a prediction for each image, in their order. Raises WorkFailed when asked to stop."""

    def facts(self) -> dict[str, Any]:
        """Return what decides the numbers besides teachers and settings, for lineage and keys, as JSON takes it."""

    def close(self) -> None:
        """End threads."""


class CpuPredictor:
    """Equal threads of one core each, which read, decode, resize and predict a batch.

    A teacher runs as its own classifier, not as its dense form: the last layer is computed once and not in each cell.
    """

    def __init__(self, teachers: Sequence[Teacher], settings: PredictionSettings, *, workers: int) -> None:
        self._settings, self._workers = settings, workers
        self._loadings = tuple(dict.fromkeys(settings.loading(teacher) for teacher in teachers))
        self._members = [_make_member(teacher, settings, self._loadings) for teacher in teachers]

    def predict(self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch) -> list[Predicted]:
        """Return a prediction for each image; batches are cut at fixed places of the sequence."""

        def work(start: int) -> list[Predicted]:
            check_stop()
            use_one_core()
            found = self._predict_batch(images[start : start + self._settings.batch_size])
            on_batch(len(found), sum(isinstance(one, RejectedImage) for one in found))
            return found

        with ThreadPoolExecutor(self._workers, thread_name_prefix="predict") as threads:
            batches = [threads.submit(work, start) for start in range(0, len(images), self._settings.batch_size)]
            try:
                return [prediction for batch in batches for prediction in batch.result()]
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise

    def facts(self) -> dict[str, Any]:
        """Return what was done to each model, and what they run on."""
        return {"device": "cpu", "models": [model.facts() for _, _, model in self._members]}

    def close(self) -> None:
        """Nothing to end: threads live as long as a call."""

    def _predict_batch(self, images: Sequence[ImageToLabel]) -> list[Predicted]:
        loaded = load_each_once(images, self._loadings)
        pictures = [sizes for sizes in loaded if not isinstance(sizes, RejectedImage)]
        predictions = iter(self._predict_pictures(pictures) if pictures else ())
        return [one if isinstance(one, RejectedImage) else next(predictions) for one in loaded]

    def _predict_pictures(self, pictures: Sequence[Sequence[Pixels]]) -> list[Predicted]:
        """Return predictions of images, each given at all sizes of `_loadings`."""
        total: Tensor | None = None
        with torch.inference_mode():
            for teacher, place, model in self._members:
                pixels = normalise([sizes[place] for sizes in pictures], teacher)
                flipped = model(pixels.flip(WIDTH)) if self._settings.views == "flip" else None
                probabilities = average_views(model(pixels), flipped)
                total = probabilities if total is None else total + probabilities
            assert total is not None  # noqa: S101 - there is a teacher
            return read_predictions(find_facts(total / len(self._members), self._settings.top_k))


def _make_member(
    teacher: Teacher, settings: PredictionSettings, loadings: Sequence[Loading]
) -> tuple[Teacher, int, FastModel]:
    """Return a teacher, the place of its loading, and its fast form."""
    loading = settings.loading(teacher)
    model = make_fast(teacher.classifier, precision=settings.precision, input_size=loading.size)
    return teacher, loadings.index(loading), model


def load_each_once(images: Sequence[ImageToLabel], loadings: Sequence[Loading]) -> list[list[Pixels] | RejectedImage]:
    """Return each image's pixels by each of `loadings`, or why there are none; a file is read and decoded once."""

    def load(image: ImageToLabel) -> list[Pixels] | RejectedImage:
        try:
            return load_at_sizes(image, loadings)
        except RejectedImage as rejected:
            return rejected

    if any(is_object_url(image.path) for image in images):  # as load_each does
        return in_parallel(load, images)
    return [load(image) for image in images]
