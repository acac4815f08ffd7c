"""The pixels of training images: decoded once into memory that processes share, or read whenever they are wanted."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import pyarrow.compute as pc
import torch

from labelmill.schemas.images import Reason
from labelmill.tasks.images.decode_image import Pixels, decode_ingested
from labelmill.tasks.images.read_ingested import read_ingested
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.stop import check_stop
from labelmill.tasks.train.examples import Examples

CHANNELS = 3

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - no file is made there by name


class PixelSource(Protocol):
    """Gives the pixels of images by their places; goes to other processes."""

    def read(self, place: int) -> Pixels:
        """Return an image, (H, W, 3) uint8, not to be changed; raise RejectedImage when it cannot be read."""


class FilePixels:
    """Reads and decodes at every call, with the decoders of the engines."""

    def __init__(self, examples: Examples, *, max_pixels: int) -> None:
        self._examples, self._max_pixels = examples, max_pixels

    def read(self, place: int) -> Pixels:
        """See PixelSource."""
        row = self._examples.row(place)
        known = None if row["width"] is None else (row["height"], row["width"])  # None where ingest read no content
        if known is not None and known[0] * known[1] > self._max_pixels:
            raise RejectedImage(Reason.TOO_MANY_PIXELS, f"more than {self._max_pixels} pixels")
        data = read_ingested(row["path"], size=row["bytes"], sha256=row["sha256"])
        pixels = decode_ingested(data, format=row["format"], mode=row["mode"], max_pixels=self._max_pixels)
        if known is not None and pixels.shape[:2] != known:
            raise RejectedImage(Reason.CHANGED, "size differs from what was ingested; ingest again")
        return pixels


class PackedPixels:
    """All images in one block of memory, which processes share without a copy."""

    def __init__(self, block: torch.Tensor, starts: torch.Tensor, sizes: torch.Tensor) -> None:
        self._block, self._starts, self._sizes = block, starts, sizes

    def read(self, place: int) -> Pixels:
        """See PixelSource."""
        height, width = self._sizes[place].tolist()
        start = int(self._starts[place])
        pixels: Pixels = self._block[start : start + height * width * CHANNELS].numpy().reshape(height, width, CHANNELS)
        return pixels


def count_bytes(examples: Examples) -> int | None:
    """Return the bytes of all images when they are decoded, None where their sizes are not known before."""
    if examples.rows["width"].null_count:
        return None
    areas = pc.multiply(examples.rows["width"].cast("int64"), examples.rows["height"].cast("int64"))
    return CHANNELS * (pc.sum(areas).as_py() or 0)


def fits_memory(examples: Examples, *, cache_mb: int) -> bool:
    """Tell whether all images, decoded, fit into so many megabytes and into what processes can share here."""
    wanted = count_bytes(examples)
    if wanted is None:
        return False
    shared = shutil.disk_usage(_SHARED_MEMORY).free if os.path.isdir(_SHARED_MEMORY) else wanted
    return wanted <= min(cache_mb * 10**6, shared // 2)  # batches on their way from the workers lie there too


def decode_all(
    examples: Examples,
    *,
    max_pixels: int,
    workers: int = 0,
    on_images: Callable[[int, int], None] = lambda images, rejected: None,
) -> tuple[Examples, PackedPixels, dict[str, int]]:
    """Decode all images, of known sizes; return those that can be, their pixels, and how many not, by reason.

    `on_images(images, rejected)` is called from threads. Raises WorkFailed when the process was asked to stop.
    """
    source = FilePixels(examples, max_pixels=max_pixels)

    def decode(place: int) -> Pixels | RejectedImage:
        check_stop()
        try:
            found: Pixels | RejectedImage = source.read(place)
        except RejectedImage as rejected:
            found = rejected
        on_images(1, int(isinstance(found, RejectedImage)))
        return found

    block = torch.empty(count_bytes(examples) or 0, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    view, end = block.numpy(), 0
    kept: list[int] = []
    starts: list[int] = []
    sizes: list[tuple[int, int]] = []
    reasons: Counter[str] = Counter()
    with ThreadPoolExecutor(workers or os.cpu_count(), thread_name_prefix="decode") as threads:
        for place, found in enumerate(threads.map(decode, range(len(examples)))):
            if isinstance(found, RejectedImage):
                reasons[found.reason.value] += 1
                continue
            view[end : end + found.size] = found.reshape(-1)
            kept.append(place)
            starts.append(end)
            sizes.append(found.shape[:2])
            end += found.size
    packed = PackedPixels(block, torch.tensor(starts, dtype=torch.int64), torch.tensor(sizes, dtype=torch.int64))
    return examples.take(np.array(kept, np.int64)), packed, dict(reasons)
