"""A process that runs an engine for another one: it answers requests until nobody can send any more."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from labelmill.models.teacher import load_teacher
from labelmill.schemas.errors import LabelmillError, WorkFailed
from labelmill.tasks.end_with_parent import end_with_parent
from labelmill.tasks.relabel.cuda_engine import CudaEngine
from labelmill.tasks.relabel.settings import RelabelSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSource:
    """What `load_teacher` takes: enough for another process to load the same teacher."""

    name: str
    weights: str
    classes: str


def serve(
    source: TeacherSource, settings: RelabelSettings, device: str, workers: int, lanes: Sequence[Connection]
) -> None:
    """Load the teacher, say so on the first lane, and answer the requests of all lanes, each in a thread of its own.

    A request is ("label", images, temperature) or ("native", images). An answer is a list, or the error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    end_with_parent()
    try:
        teacher = load_teacher(source.name, weights=source.weights, classes=source.classes)
        engine = CudaEngine(teacher, settings, device=device, workers=workers)
    except LabelmillError as error:
        lanes[0].send(error)
        return
    lanes[0].send((teacher.digest, engine.facts()))
    threads = [threading.Thread(target=_answer, args=(engine, lane, device)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()


def _answer(engine: CudaEngine, lane: Connection, device: str) -> None:
    with lane:
        while True:
            try:
                request = lane.recv()
            except (EOFError, OSError):  # the parent has closed its end
                return
            try:
                answer = _do(engine, *request)
            except LabelmillError as error:
                answer = error
            except Exception as error:
                logger.exception("the process for %s failed at a request", device)  # its traceback cannot be sent
                answer = WorkFailed(f"the process for {device}: {type(error).__name__}: {error}")
            lane.send(answer)


def _do(engine: CudaEngine, kind: str, *given: Any) -> Any:  # noqa: ANN401 - as `serve` describes
    if kind == "label":
        images, temperature = given
        return engine.label(images, temperature=temperature)
    (images,) = given
    # as arrays: torch would share a tensor's memory instead of sending it
    return [None if found is None else found.numpy() for found in engine.native_probabilities(images)]
