"""Predict whole images by the mean of several teachers and views, on GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from labelmill.models.device_forward import DeviceModel, make_device_model
from labelmill.models.teacher import Teacher
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.pseudo_labels.predict import Predictor
from labelmill.tasks.pseudo_labels.prediction import Predicted, average_views, find_facts, read_predictions
from labelmill.tasks.pseudo_labels.settings import PredictionSettings
from labelmill.tasks.relabel.cuda_engine import device_facts
from labelmill.tasks.relabel.device_pipeline import DevicePipeline, Values
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch
from labelmill.tasks.relabel.load import ImageToLabel, Loading

WIDTH = 2
"""The axis to mirror of pixels (B, H, W, 3), which a model on a device takes."""

BATCHES_AT_ONCE = 16
"""Batches whose whole probabilities wait for the pass at another size."""


class DevicePredictor:
    """One GPU, `cuda:0` for example; `workers` threads load images for it.

    Teachers that take the same pixels run in one pass; each other size is a pass of its own. With `device` "cpu"
    everything takes the same way on the CPU: for tests.
    """

    def __init__(self, teachers: Sequence[Teacher], settings: PredictionSettings, *, device: str, workers: int) -> None:
        self._settings, self._device, self._count = settings, torch.device(device), len(teachers)
        passes: dict[Loading, list[DeviceModel]] = {}
        models = []
        for teacher in teachers:
            loading = settings.loading(teacher)
            models.append(
                make_device_model(
                    teacher.classifier, teacher.preprocessing, device=self._device, input_size=loading.size,
                    precision=settings.precision,
                )
            )  # fmt: skip
            passes.setdefault(loading, []).append(models[-1])
        self._facts = {**device_facts(self._device), "models": [model.facts() for model in models]}
        self._pipelines = [
            DevicePipeline(
                self._make_compute(of_pass, alone=len(passes) == 1), loading, device=self._device,
                batch_size=settings.batch_size, workers=workers,
            )
            for loading, of_pass in passes.items()
        ]  # fmt: skip

    def predict(self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch) -> list[Predicted]:
        """Return a prediction for each image; batches are cut at fixed places of the sequence."""
        if len(self._pipelines) == 1:
            return self._pipelines[0].run(images, read_predictions, on_batch=on_batch)
        stretch = self._settings.batch_size * BATCHES_AT_ONCE
        return [
            prediction
            for start in range(0, len(images), stretch)
            for prediction in self._predict_in_passes(images[start : start + stretch], on_batch)
        ]

    def facts(self) -> dict[str, Any]:
        """Return what was done to each model, and what they run on."""
        return dict(self._facts)

    def close(self) -> None:
        """End the pipelines' threads."""
        for pipeline in self._pipelines:
            pipeline.close()

    def _make_compute(self, models: Sequence[DeviceModel], *, alone: bool) -> Callable[[Tensor], Values]:
        """Return what a pass computes of pixels: facts, so that little leaves the device, or sums when not alone."""

        def add_up(pixels: Tensor) -> Tensor:
            total: Tensor | None = None
            for model in models:
                flipped = model(pixels.flip(WIDTH)) if self._settings.views == "flip" else None
                probabilities = average_views(model(pixels), flipped)
                total = probabilities if total is None else total + probabilities
            assert total is not None  # noqa: S101 - there is a model
            return total

        if alone:
            return lambda pixels: find_facts(add_up(pixels) / self._count, self._settings.top_k)
        return lambda pixels: (add_up(pixels),)

    def _predict_in_passes(self, images: Sequence[ImageToLabel], on_batch: OnBatch) -> list[Predicted]:
        sums: list[Tensor | RejectedImage] = []
        for pipeline in self._pipelines:
            found = pipeline.run(images, lambda values: list(values[0]))
            sums = [_add(one, other) for one, other in zip(sums, found, strict=True)] if sums else list(found)
        good = [one for one in sums if not isinstance(one, RejectedImage)]
        facts = find_facts(torch.stack(good) / self._count, self._settings.top_k) if good else None
        predictions = iter(read_predictions(facts) if facts else ())
        result = [one if isinstance(one, RejectedImage) else next(predictions) for one in sums]
        on_batch(len(result), sum(isinstance(one, RejectedImage) for one in result))
        return result


def _add(one: Tensor | RejectedImage, other: Tensor | RejectedImage) -> Tensor | RejectedImage:
    """Add two passes' sums; an image that one of them could not read has none."""
    if isinstance(one, RejectedImage):
        return one
    return other if isinstance(other, RejectedImage) else one + other


class PredictorsSideBySide:
    """Several predictors that share the images, a stretch of whole batches each: batches are those of one alone."""

    def __init__(self, predictors: Sequence[Predictor], *, batch_size: int) -> None:
        self._predictors, self._batch_size = predictors, batch_size

    def predict(self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch) -> list[Predicted]:
        """Return a prediction for each image, in their order."""
        batches = -(-len(images) // self._batch_size)
        stretch = max(-(-batches // len(self._predictors)), 1) * self._batch_size
        with ThreadPoolExecutor(len(self._predictors), thread_name_prefix="predictor") as threads:
            found = [
                threads.submit(predictor.predict, images[number * stretch : (number + 1) * stretch], on_batch=on_batch)
                for number, predictor in enumerate(self._predictors)
            ]
            return [prediction for each in found for prediction in each.result()]

    def facts(self) -> dict[str, Any]:
        """Return the facts of each kind of device among them."""
        each = [predictor.facts() for predictor in self._predictors]
        return each[0] if all(facts == each[0] for facts in each) else {"devices": each}

    def close(self) -> None:
        """End all threads."""
        for predictor in self._predictors:
            predictor.close()
