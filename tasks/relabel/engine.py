"""Run a teacher over images: equal threads, each of which reads, decodes, resizes, infers and encodes a batch."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from labelmill.models.label_encoding import EncodedMap, encode_map, gather_maps, top_cells
from labelmill.models.label_pooling import pool_logits
from labelmill.models.teacher import Teacher
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.tasks.images.read_image import RejectedImage, decode_rgb, read_bytes
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.stop import check_stop

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

_intra_op = threading.local()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageToLabel:
    """An image that a teacher shall see; `sha256` is what its file's content must still be."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """What became of an image: a map and its pooled class and probability over the whole image, or a reason."""

    map: EncodedMap | None = None
    pooled_class: int | None = None
    pooled_prob: float | None = None
    reason: Reason | None = None
    detail: str | None = None


def load_resized(image: ImageToLabel, size: tuple[int, int], *, interpolation: str, max_pixels: int) -> np.ndarray:
    """Read an image and resize the whole of it, aspect ratio not kept; return (height, width, 3) uint8 RGB.

    Raises RejectedImage, with reason `changed` when the file is not the one that was ingested.
    """
    picture = decode_rgb(_read_as_ingested(image), max_pixels=max_pixels)
    return np.asarray(picture.resize((size[1], size[0]), _FILTERS[interpolation]))


def _read_as_ingested(image: ImageToLabel) -> bytes:
    changed = RejectedImage(Reason.CHANGED, "content differs from what was ingested; ingest again")
    try:
        data = read_bytes(image.path, max_bytes=image.bytes)
    except RejectedImage as rejected:
        if rejected.reason is Reason.TOO_MANY_BYTES:  # more than were ingested
            raise changed from rejected
        raise
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise changed
    return data


def normalise(pixels: Sequence[np.ndarray], teacher: Teacher) -> Tensor:
    """Return (B, 3, H, W) float32 in the teacher's range from B arrays (H, W, 3) uint8."""
    height, width, _ = pixels[0].shape
    mean, std = (torch.tensor(v).repeat(width) for v in (teacher.preprocessing.mean, teacher.preprocessing.std))
    lines = torch.from_numpy(np.stack(pixels)).view(len(pixels), height, width * 3)
    batch = torch.empty(lines.shape)
    for row, image in zip(batch, lines, strict=True):  # one by one: they stay in the cache
        row.copy_(image).div_(255).sub_(mean).div_(std)
    return batch.view(-1, height, width, 3).permute(0, 3, 1, 2)  # channels last in memory


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
    results = [Labelled()] * len(images)
    pixels, places = [], []
    for place, image in enumerate(images):
        try:
            pixels.append(
                load_resized(
                    image,
                    settings.input_size,
                    interpolation=teacher.preprocessing.interpolation,
                    max_pixels=settings.max_pixels,
                )
            )
            places.append(place)
        except RejectedImage as rejected:
            results[place] = Labelled(reason=rejected.reason, detail=rejected.detail)
    if pixels:
        with torch.inference_mode():
            dense = model(normalise(pixels, teacher))
        for place, labelled in zip(places, _encode_batch(dense, settings, temperature), strict=True):
            results[place] = labelled
    return results


def _encode_batch(dense: Tensor, settings: RelabelSettings, temperature: float) -> list[Labelled]:
    top = top_cells(dense, settings.top_k)
    results: list[Labelled] = []
    for row in range(len(dense)):
        try:
            results.append(Labelled(map=encode_map(top, row, step=settings.logit_step)))
        except BadInput as error:  # not a number, or beyond all range: this image's fault alone
            results.append(Labelled(reason=Reason.NOT_FINITE, detail=str(error)))
    maps = [r.map for r in results if r.map is not None]
    logits = pool_whole(maps, (dense.shape[2], dense.shape[3]), num_classes=dense.shape[1], settings=settings)
    prob, place = torch.softmax(logits / temperature, dim=1).max(1)
    pooled = iter(zip(place.tolist(), prob.tolist(), strict=True))
    return [_with_pooled(r, *next(pooled)) if r.map is not None else r for r in results]


def _with_pooled(labelled: Labelled, pooled_class: int, pooled_prob: float) -> Labelled:
    return Labelled(map=labelled.map, pooled_class=pooled_class, pooled_prob=pooled_prob)


def pool_whole(
    maps: Sequence[EncodedMap], grid: tuple[int, int], *, num_classes: int, settings: RelabelSettings
) -> Tensor:
    """Return the default mode's logits (N, C) of whole images from their stored maps, as any reader gets them."""
    batch = gather_maps(
        maps, grid=grid, top_k=min(settings.top_k, num_classes), step=settings.logit_step, num_classes=num_classes
    )
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(maps), 4)
    return pool_logits(batch, boxes, absent_share=settings.absent_share)
