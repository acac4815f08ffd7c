"""Run a teacher over images: equal threads, each of which reads, decodes, resizes, infers and encodes a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from labelmill.models.teacher import Teacher
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.encode import Labelled, encode_batch, reject
from labelmill.tasks.relabel.load import ImageToLabel, load_each, normalise
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.stop import check_stop

_intra_op = threading.local()


def label_images(
    teacher: Teacher,
    images: Sequence[ImageToLabel],
    settings: RelabelSettings,
    *,
    workers: int,
    model: nn.Module | None = None,
    temperature: float = 1.0,
    on_batch: Callable[[int, int], None] = lambda done, rejected: None,
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
