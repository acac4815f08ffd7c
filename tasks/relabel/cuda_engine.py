"""The engine of one GPU, in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from labelmill.models.device_forward import DeviceModel, make_device_classifier, make_device_model
from labelmill.models.label_encoding import TopCells, top_cells
from labelmill.models.teacher import Teacher
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.device_pipeline import DevicePipeline, Values
from labelmill.tasks.relabel.encode import Labelled, encode_top, reject
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.settings import RelabelSettings

SHARDS_AT_ONCE = 3
"""One is labelled; writing one takes a core 0.3 to 1 ms an image, up to some times what a GPU takes."""


class CudaEngine:
    """Runs a teacher on one GPU, `cuda:0` for example; `workers` threads load images for it.

    Only the top-k of each cell leaves the device. With `device` "cpu" everything takes the same way on the CPU: for
    tests. `model` is the teacher's form on the device, made here by default.
    """

    shards_at_once = SHARDS_AT_ONCE

    def __init__(
        self,
        teacher: Teacher,
        settings: RelabelSettings,
        *,
        device: str,
        workers: int,
        model: DeviceModel | None = None,
    ) -> None:
        self._teacher = teacher
        self._settings = settings
        self._device = torch.device(device)
        self._workers = workers
        self._model = model or make_device_model(
            teacher.model, teacher.preprocessing, device=self._device, input_size=settings.input_size,
            precision=settings.precision,
        )  # fmt: skip
        self._facts = {**self._model.facts(), **device_facts(self._device)}
        self._pipeline = self._make_pipeline(self._find_top, settings.input_size)

    def label(
        self, images: Sequence[ImageToLabel], *, temperature: float = 1.0, on_batch: OnBatch = ignore_batch
    ) -> list[Labelled]:
        """Label images; the result has one entry for each, in their order, and does not depend on `workers`."""

        def encode(top: Values) -> list[Labelled]:
            ids, logits, log_sum_exp, class_sums = top
            cells = TopCells(ids=ids, logits=logits, log_sum_exp=log_sum_exp, class_sums=class_sums)
            return encode_top(cells, self._settings, temperature, num_classes=self._teacher.num_classes)

        found = self._pipeline.run(images, encode, on_batch=on_batch)
        return [reject(one) if isinstance(one, RejectedImage) else one for one in found]

    def native_probabilities(
        self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch
    ) -> list[Tensor | None]:
        """Return the classifier's own probabilities (C,) float32, computed in float32; None where unreadable."""
        pipeline = self._make_pipeline(self._make_classifier(), self._teacher.preprocessing.native_size)
        try:
            found = pipeline.run(images, lambda values: list(values[0]), on_batch=on_batch)
        finally:
            pipeline.close()
        return [None if isinstance(one, RejectedImage) else one for one in found]

    def facts(self) -> dict[str, Any]:
        """Return what was done to the model and what it runs on."""
        return dict(self._facts)

    def close(self) -> None:
        """End the threads."""
        self._pipeline.close()

    def _make_pipeline(self, compute: Callable[[Tensor], Values], size: tuple[int, int]) -> DevicePipeline:
        return DevicePipeline(
            compute,
            self._settings.loading(self._teacher.preprocessing, size),
            device=self._device,
            batch_size=self._settings.batch_size,
            workers=self._workers,
        )

    def _find_top(self, pixels: Tensor) -> Values:
        top = top_cells(self._model(pixels), self._settings.top_k)
        return top.ids, top.logits, top.log_sum_exp, top.class_sums

    def _make_classifier(self) -> Callable[[Tensor], Values]:
        teacher, preprocessing = self._teacher, self._teacher.preprocessing
        if teacher.head != "linear":
            whole = make_device_classifier(teacher.classifier, preprocessing, self._device)
            return lambda pixels: (whole(pixels).softmax(1),)
        dense = make_device_model(
            teacher.model, preprocessing, device=self._device, input_size=preprocessing.native_size
        )
        return lambda pixels: (dense(pixels).mean((2, 3)).softmax(1),)


def device_facts(device: torch.device) -> dict[str, Any]:
    """Return what a device and its libraries are, as JSON takes it."""
    if device.type != "cuda":
        return {"device": device.type}
    return {
        "device": "cuda",
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }
