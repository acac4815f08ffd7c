"""What a teacher's own classifier says of whole images at the size it was trained for, on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from labelmill.models.fast_forward import make_fast
from labelmill.models.teacher import Teacher
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch, use_one_core
from labelmill.tasks.relabel.load import ImageToLabel, load_resized, normalise
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.stop import check_stop


def native_probabilities(
    teacher: Teacher,
    images: Sequence[ImageToLabel],
    settings: RelabelSettings,
    *,
    workers: int,
    on_batch: OnBatch = ignore_batch,
) -> list[Tensor | None]:
    """Return (C,) float32 probabilities of each whole image at the size that the teacher was trained for.

    None for an image that cannot be read. Each image is a batch of its own.
    """
    loading = settings.loading(teacher.preprocessing, teacher.preprocessing.native_size)
    classifier = make_native_classifier(teacher)

    def probabilities(image: ImageToLabel) -> Tensor | None:
        check_stop()
        use_one_core()
        try:
            pixels = load_resized(image, loading)
        except RejectedImage:  # counted where it is labelled; here it is only one of a sample
            on_batch(1, 1)
            return None
        on_batch(1, 0)
        with torch.inference_mode():
            return torch.softmax(classifier(normalise([pixels], teacher))[0], dim=0)

    with ThreadPoolExecutor(workers, thread_name_prefix="native") as threads:
        return list(threads.map(probabilities, images))


def make_native_classifier(teacher: Teacher) -> Callable[[Tensor], Tensor]:
    """Return the classifier for images of its own size, by its fast form where its head is linear: logits (B, C)."""
    if teacher.head != "linear":
        return teacher.classifier_logits
    dense = make_fast(teacher.model, input_size=teacher.preprocessing.native_size)
    return lambda images: dense(images).mean((2, 3))
