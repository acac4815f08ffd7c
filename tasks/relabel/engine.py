"""What runs a teacher over images; on a CPU, equal threads that each read, decode, resize, infer and encode a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from labelmill.models.teacher import Teacher
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.encode import Labelled, encode_batch, reject
from labelmill.tasks.relabel.load import ImageToLabel, load_each, normalise
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.stop import check_stop

_intra_op = threading.local()

OnBatch = Callable[[int, int], None]
"""Is told (images, rejected among them) of each batch that is done; by any thread."""


def ignore_batch(done: int, rejected: int) -> None:
    """Take no notice of a batch."""


class Engine(Protocol):
    """A teacher with its settings on the devices that run it; any number of threads may call it at once.

    `shards_at_once` says how many shards to work on at a time: one is labelled, the others are being written.
    """

    shards_at_once: int

    def label(
        self, images: Sequence[ImageToLabel], *, temperature: float = 1.0, on_batch: OnBatch = ignore_batch
    ) -> list[Labelled]:
        """Label images; one entry for each, in their order. Raises WorkFailed when asked to stop."""

    def native_probabilities(
        self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch
    ) -> list[Tensor | None]:
        """Return the classifier's own probabilities (C,) float32 of each whole image at the teacher's native size.

        None for an image that cannot be read. Raises WorkFailed when asked to stop.
        """

    def facts(self) -> dict[str, Any]:
        """Return what decides the bytes besides teacher and settings, for lineage and shard keys, as JSON takes it."""

    def close(self) -> None:
        """End threads and processes; the facts can still be asked for."""


def label_images(
    teacher: Teacher,
    images: Sequence[ImageToLabel],
    settings: RelabelSettings,
    *,
    workers: int,
    model: nn.Module | None = None,
    temperature: float = 1.0,
    on_batch: OnBatch = ignore_batch,
) -> list[Labelled]:
    """Label images; the result has one entry for each, in their order, and does not depend on `workers`.

    `model` is the form of the teacher's dense model to run, its own by default; any number of threads call it at once.
    Batches are cut at fixed places of the sequence. `on_batch` is told (images, rejected among them). Raises
    WorkFailed when the process was asked to stop.
    """
    starts = range(0, len(images), settings.batch_size)
    run = model or teacher.model

    def work(start: int) -> list[Labelled]:
        check_stop()
        use_one_core()
        batch = images[start : start + settings.batch_size]
        results = _label_batch(teacher, run, batch, settings, temperature)
        on_batch(len(results), sum(r.map is None for r in results))
        return results

    with ThreadPoolExecutor(workers, thread_name_prefix="label") as threads:
        batches = [threads.submit(work, start) for start in starts]
        try:
            return [labelled for batch in batches for labelled in batch.result()]
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def use_one_core() -> None:
    """Keep torch from spreading a batch over cores: the threads share those already."""
    if not getattr(_intra_op, "single", False):
        torch.set_num_threads(1)
        _intra_op.single = True


def _label_batch(
    teacher: Teacher,
    model: nn.Module,
    images: Sequence[ImageToLabel],
    settings: RelabelSettings,
    temperature: float,
) -> list[Labelled]:
    loaded = load_each(images, settings.loading(teacher.preprocessing))
    pixels = [found for found in loaded if not isinstance(found, RejectedImage)]
    labelled: Iterator[Labelled] = iter(())
    if pixels:
        with torch.inference_mode():
            labelled = iter(encode_batch(model(normalise(pixels, teacher)), settings, temperature))
    return [reject(found) if isinstance(found, RejectedImage) else next(labelled) for found in loaded]
