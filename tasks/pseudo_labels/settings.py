"""What decides the bytes of pseudo labels, besides the images and the teachers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from labelmill.models.fast_forward import Precision
from labelmill.models.teacher import Teacher
from labelmill.tasks.relabel.load import Loading, choose_resizer
from labelmill.tasks.relabel.settings import numerics

Views = Literal["whole", "flip"]

FORM = 1
"""Counts the ways in which the numbers were computed: another one makes all shards anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionSettings:
    """Parameters of the arithmetic; `workers` is not among them, it changes no byte.

    input_size: (height, width) in pixels, None for each teacher's own. max_pixels bounds an image's area before it is
    decoded.
    """

    views: Views
    top_k: int
    batch_size: int
    max_pixels: int
    input_size: tuple[int, int] | None = None
    precision: Precision = "fp32"

    def loading(self, teacher: Teacher) -> Loading:
        """Return how images are loaded for a teacher: the whole of them, at the teacher's own size or the one given."""
        preprocessing = teacher.preprocessing
        return Loading(
            size=self.input_size or preprocessing.native_size,
            interpolation=preprocessing.interpolation,
            max_pixels=self.max_pixels,
            resizer=choose_resizer(self.precision, preprocessing.interpolation),
        )

    def facts(self) -> dict[str, Any]:
        """Return these settings and the numerics under them, for receipts and lineage."""
        size = list(self.input_size) if self.input_size else None
        return {**asdict(self), "input_size": size, "form": FORM, "numerics": numerics()}
