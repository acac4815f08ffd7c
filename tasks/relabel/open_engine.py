"""The engine that fits a run's devices."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.models.teacher import Teacher
from labelmill.tasks.relabel.cpu_engine import CpuEngine
from labelmill.tasks.relabel.cuda_engine import CudaEngine
from labelmill.tasks.relabel.cuda_processes import ProcessEngine
from labelmill.tasks.relabel.devices import CPU
from labelmill.tasks.relabel.engine import Engine
from labelmill.tasks.relabel.engine_process import TeacherSource
from labelmill.tasks.relabel.settings import RelabelSettings


def open_engine(
    teacher: Teacher, settings: RelabelSettings, *, devices: Sequence[str], workers: int, source: TeacherSource
) -> Engine:
    """Return an engine for `devices`, as `choose_devices` gives them; its `close` must be called.

    `source` is what the teacher was loaded from: with several devices each has a process that loads it again.
    `workers` are threads: on a CPU they do everything, for a GPU they load the images.
    """
    if tuple(devices) == CPU:
        return CpuEngine(teacher, settings, workers=workers)
    if len(devices) == 1:
        return CudaEngine(teacher, settings, device=devices[0], workers=workers)
    return ProcessEngine(source, settings, devices=devices, workers=workers, digest=teacher.digest)
