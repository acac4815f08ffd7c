"""The engine of a CPU: equal threads that share its cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from labelmill.models.fast_forward import FastModel, make_fast
from labelmill.models.teacher import Teacher
from labelmill.tasks.relabel.encode import Labelled
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch, label_images
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.native_pass import native_probabilities
from labelmill.tasks.relabel.settings import RelabelSettings


class CpuEngine:
    """Runs a teacher on `workers` threads of one core each; `model` is its fast form, made here by default."""

    shards_at_once = 1

    def __init__(
        self, teacher: Teacher, settings: RelabelSettings, *, workers: int, model: FastModel | None = None
    ) -> None:
        self._teacher = teacher
        self._settings = settings
        self._workers = workers
        self._model = model or make_fast(teacher.model, precision=settings.precision, input_size=settings.input_size)

    def label(
        self, images: Sequence[ImageToLabel], *, temperature: float = 1.0, on_batch: OnBatch = ignore_batch
    ) -> list[Labelled]:
        """Label images (see label_images)."""
        return label_images(
            self._teacher, images, self._settings, workers=self._workers, model=self._model, temperature=temperature,
            on_batch=on_batch,
        )  # fmt: skip

    def native_probabilities(
        self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch
    ) -> list[Tensor | None]:
        """Return the classifier's own probabilities (see native_pass)."""
        return native_probabilities(self._teacher, images, self._settings, workers=self._workers, on_batch=on_batch)

    def facts(self) -> dict[str, Any]:
        """Return what was done to the model and what it runs on."""
        return {**self._model.facts(), "device": "cpu"}

    def close(self) -> None:
        """Nothing to end: threads live as long as a call."""
