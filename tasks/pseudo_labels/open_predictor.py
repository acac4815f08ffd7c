"""The predictor that fits a run's devices."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.models.teacher import Teacher
from labelmill.tasks.pseudo_labels.predict import CpuPredictor, Predictor
from labelmill.tasks.pseudo_labels.predict_on_device import DevicePredictor, PredictorsSideBySide
from labelmill.tasks.pseudo_labels.settings import PredictionSettings
from labelmill.tasks.relabel.devices import CPU


def open_predictor(
    teachers: Sequence[Teacher], settings: PredictionSettings, *, devices: tuple[str, ...], workers: int
) -> Predictor:
    """Make the teachers ready on `devices`; `workers` threads run them on a CPU, and load images for GPUs.

    Raises BadInput when a teacher does not take images of the size.
    """
    if devices == CPU:
        return CpuPredictor(teachers, settings, workers=workers)
    each = max(workers // len(devices), 1)
    made = [DevicePredictor(teachers, settings, device=device, workers=each) for device in devices]
    return made[0] if len(made) == 1 else PredictorsSideBySide(made, batch_size=settings.batch_size)
