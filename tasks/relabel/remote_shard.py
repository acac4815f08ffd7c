"""Label a shard in a process that knows nothing of the run yet: what it needs travels as values."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from labelmill.models.teacher import load_teacher
from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.relabel.devices import choose_devices
from labelmill.tasks.relabel.engine_process import TeacherSource
from labelmill.tasks.relabel.open_engine import open_engine
from labelmill.tasks.relabel.settings import RelabelSettings
from labelmill.tasks.relabel.shards import LabelMapJob, label_shard
from labelmill.tasks.shards import Shard
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteJob:
    """A job (`LabelMapJob`) without its live parts: the teacher and the engine are opened where it is worked on.

    `digest` and `engine` are what the teacher and the engine's facts must be there, or the shards' keys would lie.
    """

    store: str
    images: str
    label_maps: str
    roots: dict[str, str]
    source: TeacherSource
    settings: RelabelSettings
    device: str
    workers: int
    temperature: float
    teacher_labels: tuple[int | None, ...]
    run: str
    digest: str
    engine: dict[str, Any]


_opening = threading.Lock()
_held: list[tuple[RemoteJob, LabelMapJob]] = []
"""The job that this process has open: its teacher stays for the next shard."""


def label_shard_elsewhere(job: RemoteJob, shard: Shard) -> Receipt:
    """Label a shard with this process's own teacher and engine, which stay open for the next one of the same job.

    Raises WorkFailed when the teacher's weights or the engine are not those of the run.
    """
    with _opening:
        if not _held or _held[0][0] != job:
            while _held:
                _held.pop()[1].engine.close()
            _held.append((job, _open(job)))
        opened = _held[0][1]
    return label_shard(opened, shard)


def _open(job: RemoteJob) -> LabelMapJob:
    teacher = load_teacher(job.source.name, weights=job.source.weights, classes=job.source.classes)
    if teacher.digest != job.digest:
        raise WorkFailed(
            f"teacher {job.source.name}: its weights here, from {job.source.weights}, are not those of the run"
        )
    devices = choose_devices(job.device)
    engine = open_engine(teacher, job.settings, devices=devices, workers=job.workers, source=job.source)
    if different := _differences(job.engine, engine.facts()):
        engine.close()
        raise WorkFailed(
            "this machine computes differently from the one that started the run, and a version would mix both: "
            + "; ".join(different)
        )
    store = open_store(job.store)
    return LabelMapJob(
        images=store.table(job.images), label_maps=store.table(job.label_maps), roots=job.roots, teacher=teacher,
        engine=engine, settings=job.settings, temperature=job.temperature, teacher_labels=job.teacher_labels,
        run=job.run,
    )  # fmt: skip


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [
        f"{name} {found.get(name)!r} instead of {expected.get(name)!r}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
