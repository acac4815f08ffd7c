"""The engine of several GPUs: a process for each, which loads the teacher itself and labels stretches of batches."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelmill.schemas.errors import BadInput, LabelmillError, WorkFailed
from labelmill.tasks.relabel.cuda_engine import SHARDS_AT_ONCE
from labelmill.tasks.relabel.encode import Labelled
from labelmill.tasks.relabel.engine import OnBatch, ignore_batch
from labelmill.tasks.relabel.engine_process import TeacherSource, serve
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.start_shielded import shielded_from_interrupts
from labelmill.tasks.stop import check_stop

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

STRETCH_BATCHES = 2
"""Batches in a request: few, so that the devices finish a shard at about the same time."""

LANES = 2
"""Requests that a process has at a time: one is labelled while the next is loaded."""

JOIN_TIMEOUT_S = 20.0
"""For a process to end by itself, once it has nothing more to read."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Worker:
    """A process with its device; `lock` guards waiting for its end, which only one thread may do at a time."""

    device: str
    process: SpawnProcess
    lanes: tuple[Connection, ...]
    lock: threading.Lock

    def receive(self, lane: Connection) -> Any:  # noqa: ANN401 - what the process answers
        """Return the next answer; raise the error that the process sent, or WorkFailed when it has died."""
        try:
            answer = lane.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(answer, LabelmillError):
            raise answer
        return answer

    def ask(self, lane: Connection, request: tuple[Any, ...]) -> Any:  # noqa: ANN401 - what the process answers
        """Send a request and return its answer."""
        try:
            lane.send(request)
        except OSError as error:
            raise self._died() from error
        return self.receive(lane)

    def _died(self) -> WorkFailed:
        with self.lock:
            self.process.join(JOIN_TIMEOUT_S)
        return WorkFailed(
            f"the process for {self.device} (pid {self.process.pid}) died, exit code {self.process.exitcode}: killed "
            "for memory, or a fault that it printed above; what is finished is kept, run the same command to go on"
        )

    def end(self) -> None:
        """Let the process end by itself, and kill it when it does not."""
        for lane in self.lanes:
            lane.close()
        with self.lock:
            self.process.join(JOIN_TIMEOUT_S)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()


class ProcessEngine:
    """Runs a teacher on several devices; `workers` threads load images, divided among the processes.

    Results do not depend on the number of processes: batches are cut at the places where one process cuts them.
    Raises WorkFailed or BadInput when a process cannot load the teacher, or has loaded another than `digest` names.
    """

    def __init__(
        self, source: TeacherSource, settings: RelabelSettings, *, devices: Sequence[str], workers: int, digest: str
    ) -> None:
        each = max(workers // len(devices), 1)
        self.shards_at_once = SHARDS_AT_ONCE * len(devices)
        self._stretch = STRETCH_BATCHES * settings.batch_size
        self._workers: list[_Worker] = []
        self._threads = ThreadPoolExecutor(LANES * len(devices), thread_name_prefix="process")
        try:
            for device in devices:
                self._workers.append(_start(source, settings, device, each))
            self._facts = _join_facts([self._wait_until_ready(worker, digest) for worker in self._workers])
        except BaseException:
            for worker in self._workers:
                worker.process.kill()  # it may still be loading, and would wait for nobody
            self.close()
            raise
        self._free: SimpleQueue[tuple[_Worker, Connection]] = SimpleQueue()
        for place in range(LANES):
            for worker in self._workers:
                self._free.put((worker, worker.lanes[place]))

    def label(
        self, images: Sequence[ImageToLabel], *, temperature: float = 1.0, on_batch: OnBatch = ignore_batch
    ) -> list[Labelled]:
        """Label images; one entry for each, in their order. `on_batch` is told of a stretch of batches at a time.

        Raises WorkFailed when asked to stop, or when a process dies.
        """

        def work(start: int) -> list[Labelled]:
            check_stop()
            labelled: list[Labelled] = self._ask("label", images[start : start + self._stretch], temperature)
            on_batch(len(labelled), sum(one.map is None for one in labelled))
            return labelled

        stretches = [self._threads.submit(work, start) for start in range(0, len(images), self._stretch)]
        try:
            return [labelled for stretch in stretches for labelled in stretch.result()]
        except BaseException:
            for stretch in stretches:
                stretch.cancel()
            wait(stretches)
            raise

    def native_probabilities(
        self, images: Sequence[ImageToLabel], *, on_batch: OnBatch = ignore_batch
    ) -> list[Tensor | None]:
        """Return the classifier's own probabilities (C,) float32, all by one process; None where unreadable."""
        check_stop()
        found: list[npt.NDArray[np.float32] | None] = self._ask("native", images)
        on_batch(len(found), sum(one is None for one in found))
        return [None if one is None else torch.from_numpy(one) for one in found]

    def facts(self) -> dict[str, Any]:
        """Return what was done to the model and what it runs on; the GPUs by their names."""
        return dict(self._facts)

    def close(self) -> None:
        """End the processes and wait for it."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.end()

    def _ask(self, *request: Any) -> Any:  # noqa: ANN401 - what the process answers
        worker, lane = self._free.get()
        try:
            return worker.ask(lane, request)
        finally:
            self._free.put((worker, lane))  # also of a dead one: who takes it fails as well, and nobody waits for ever

    def _wait_until_ready(self, worker: _Worker, digest: str) -> dict[str, Any]:
        loaded, facts = worker.receive(worker.lanes[0])
        if loaded != digest:
            raise WorkFailed(
                f"the process for {worker.device} loaded another teacher (digest {loaded[:12]}…, expected "
                f"{digest[:12]}…): its weights or class list changed since the run began; start it again"
            )
        return {**facts}


def _start(source: TeacherSource, settings: RelabelSettings, device: str, workers: int) -> _Worker:
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    pairs = [spawn.Pipe() for _ in range(LANES)]
    theirs = [pair[1] for pair in pairs]
    process = spawn.Process(
        target=serve,
        args=(source, settings, device, workers, theirs),
        name=f"labelmill {device}",
        daemon=True,  # when nobody closes the engine, Python's exit ends it
    )
    with shielded_from_interrupts():
        process.start()
    for end in theirs:
        end.close()  # so that the process's death is the end of the pipe
    return _Worker(device=device, process=process, lanes=tuple(pair[0] for pair in pairs), lock=threading.Lock())


def _join_facts(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts that the processes share, with the names of all GPUs; raise BadInput when others differ."""
    plain = [{name: value for name, value in facts.items() if name != "gpu"} for facts in each]
    for facts in plain:
        if differing := [name for name, value in facts.items() if plain[0].get(name) != value]:
            name = differing[0]
            raise BadInput(
                f"device: the GPUs compute differently ({name} {plain[0].get(name)!r} and {facts[name]!r}); "
                "name those of one kind, such as cuda:0,1"
            )
    gpus = sorted({facts["gpu"] for facts in each if "gpu" in facts})
    return {**plain[0], **({"gpu": ", ".join(gpus)} if gpus else {})}
