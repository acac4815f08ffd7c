"""Take images through one device: threads load them, the device computes, threads finish, all at the same time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch, use_one_core
from labelmill.tasks.relabel.load import ImageToLabel, Loading, load_resized
from labelmill.tasks.stop import check_stop

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Values = tuple[Tensor, ...]

SLOTS = 4
"""Batches that hold buffers: two are being loaded, two are on the device or wait for it."""

FINISHERS = 2
"""Encoding was measured at 0.2 to 0.5 ms an image: less than a device takes for most teachers."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Slot:
    """A batch's buffers: pixels (B, H, W, 3) uint8, pinned for a GPU, and their place on the device."""

    pixels: Tensor
    on_device: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class _Computed:
    """A batch's rejects by row, its results in pieces, and the event after which a GPU has copied those."""

    rejected: list[RejectedImage | None]
    pieces: list[Values]
    copied: torch.cuda.Event | None


class DevicePipeline:
    """A bounded line of batches through one device; any number of threads may call `run`, each in its turn.

    `compute` takes pixels (B, H, W, 3) uint8 on the device and gives tensors whose first axis is B; it is always
    called by one and the same thread. A device "cpu" is for tests: it takes the same way, without streams.
    """

    def __init__(
        self,
        compute: Callable[[Tensor], Values],
        loading: Loading,
        *,
        device: torch.device,
        batch_size: int,
        workers: int,
    ) -> None:
        self._compute = compute
        self._loading = loading
        self._device = device
        self._batch_size = self._limit = batch_size
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._turn = threading.Lock()
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        # pinned memory is made for the current device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            for _ in range(SLOTS):
                self._free.put(_make_slot((batch_size, *loading.size, 3), device))
        if self._copies is not None:
            torch.cuda.synchronize(device)  # the copies' stream does not wait for what used this memory before
        self._loaders = ThreadPoolExecutor(workers, thread_name_prefix="load", initializer=use_one_core)
        self._computer = ThreadPoolExecutor(1, thread_name_prefix="device", initializer=self._enter_device)
        self._finishers = ThreadPoolExecutor(FINISHERS, thread_name_prefix="finish", initializer=use_one_core)

    def _enter_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        else:
            use_one_core()

    def run(
        self,
        images: Sequence[ImageToLabel],
        finish: Callable[[Values], list[Result]],
        *,
        on_batch: OnBatch = ignore_batch,
    ) -> list[Result | RejectedImage]:
        """Return one result for each image, in their order: what `finish` makes of it, or why it was not loaded.

        Batches are cut at fixed places; a rejected image keeps its row in the batch, so that no other image's result
        depends on it. `finish` takes the results of the images that were loaded, on the CPU, and gives one for each.
        Raises WorkFailed when the process was asked to stop, or when the device has no memory for a single image.
        """
        pending: deque[Future[list[Result | RejectedImage]]] = deque()
        results: list[Result | RejectedImage] = []
        try:
            with self._turn:  # the next caller's batches follow the last of this one's, not between them
                for start in range(0, len(images), self._batch_size):
                    check_stop()
                    while pending and pending[0].done():
                        results += pending.popleft().result()
                    pending.append(self._start(images[start : start + self._batch_size], finish, on_batch))
            while pending:
                results += pending.popleft().result()
        except BaseException:
            wait(pending)
            raise
        return results

    def close(self) -> None:
        """End the threads."""
        for threads in (self._loaders, self._computer, self._finishers):
            threads.shutdown()

    def _start(
        self, images: Sequence[ImageToLabel], finish: Callable[[Values], list[Result]], on_batch: OnBatch
    ) -> Future[list[Result | RejectedImage]]:
        slot = self._free.get()  # waits until a batch is finished: this bounds the memory
        loads = [self._loaders.submit(self._load, image, slot, row) for row, image in enumerate(images)]
        computed = self._computer.submit(self._run_batch, slot, loads)
        return self._finishers.submit(self._finish_batch, slot, computed, finish, on_batch)

    def _load(self, image: ImageToLabel, slot: _Slot, row: int) -> RejectedImage | None:
        lines = slot.pixels.numpy()  # the same memory
        try:
            lines[row] = load_resized(image, self._loading)
        except RejectedImage as rejected:
            lines[row] = 0
            return rejected
        return None

    def _run_batch(self, slot: _Slot, loads: Sequence[Future[RejectedImage | None]]) -> _Computed:
        wait(loads)  # all of them, also when one fails: none may write into the next batch
        rejected = [load.result() for load in loads]
        if all(rejected):
            return _Computed(rejected=rejected, pieces=[], copied=None)
        with torch.inference_mode():
            if self._copies is not None:
                with torch.cuda.stream(self._copies):
                    slot.on_device[: len(loads)].copy_(slot.pixels[: len(loads)], non_blocking=True)
                torch.cuda.current_stream().wait_stream(self._copies)
            pieces = self._compute_in_pieces(slot.on_device[: len(loads)])
        copied = None
        if self._copies is not None:
            # blocking: whoever waits for it leaves its core to the loaders
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record()
        return _Computed(rejected=rejected, pieces=pieces, copied=copied)

    def _compute_in_pieces(self, pixels: Tensor) -> list[Values]:
        """Compute a batch as a whole, or in as many pieces as its device's memory asks for."""
        pieces: list[Values] = []
        start = 0
        while start < len(pixels):
            piece = pixels[start : start + self._limit]
            try:
                pieces.append(_to_host(self._compute(piece)))
                start += len(piece)
                continue
            except torch.cuda.OutOfMemoryError as error:
                said = str(error)
            self._take_less(len(piece), said)  # out here the error is gone, and with it what it kept of the device
        return pieces

    def _take_less(self, count: int, said: str) -> None:
        if count == 1:
            height, width = self._loading.size
            raise WorkFailed(
                f"{self._device}: out of memory with a single image of {height}x{width}; take a smaller input_size, "
                f"precision fast or another device, and see whether another program uses this one ({said})"
            )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._limit = count // 2
        logger.warning(
            "%s: out of memory with %d images at once; %d from here on. Run it with batch_size %d to have the same "
            "numbers again",
            self._device,
            count,
            self._limit,
            self._limit,
        )

    def _finish_batch(
        self,
        slot: _Slot,
        waiting: Future[_Computed],
        finish: Callable[[Values], list[Result]],
        on_batch: OnBatch,
    ) -> list[Result | RejectedImage]:
        try:
            computed = waiting.result()
            if computed.copied is not None:
                computed.copied.synchronize()
        finally:
            self._free.put(slot)
        good = [row for row, rejected in enumerate(computed.rejected) if rejected is None]
        values = tuple(torch.cat(pieces)[good] for pieces in zip(*computed.pieces, strict=True))
        finished = iter(finish(values) if good else ())
        results = [next(finished) if rejected is None else rejected for rejected in computed.rejected]
        on_batch(len(results), len(results) - len(good))
        return results


def _make_slot(shape: tuple[int, ...], device: torch.device) -> _Slot:
    pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return _Slot(pixels=pixels, on_device=torch.empty_like(pixels, device=device) if device.type == "cuda" else pixels)


def _to_host(values: Values) -> Values:
    """Begin the copy of a device's tensors into pinned memory, on the stream that computes them."""
    if values[0].device.type == "cpu":
        return values
    return tuple(
        torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True) for value in values
    )
