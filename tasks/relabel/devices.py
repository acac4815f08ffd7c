"""Which devices a run uses, from what was asked for and what the machine has."""

from __future__ import annotations

import torch

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import parse_device
from labelmill.tasks.relabel.lease_gpu import lease_gpu

CPU = ("cpu",)

BATCH_SIZE_CPU = 16
"""A thread's batch stays in its core's share of the cache."""

BATCH_SIZE_CUDA = 64
"""A GPU needs more images than a core to be busy; where its memory is too small, the engine halves it."""


def choose_devices(device: str) -> tuple[str, ...]:
    """Return the devices of a run, `("cpu",)` or some of `("cuda:0", "cuda:1", …)`, for the parameter `device`.

    For `one` it is a GPU that no other such run on this machine holds; waits for one to be free.
    Raises BadInput when CUDA is asked for and there is none, or not the one asked for.
    """
    kind, numbers = parse_device(device)
    there = torch.cuda.device_count() if kind != "cpu" and torch.cuda.is_available() else 0
    if kind == "cpu" or (kind in ("auto", "one") and not there):
        return CPU
    if kind == "one":
        return (f"cuda:{lease_gpu([_name_of(number) for number in range(there)])}",)
    if not there:
        raise BadInput(f"device: {device} asks for CUDA, and torch {torch.__version__} finds no CUDA device; {_why()}")
    if missing := [number for number in numbers if number >= there]:
        have = "cuda:0" if there == 1 else f"cuda:0 to cuda:{there - 1}"
        raise BadInput(f"device: expected {have}, which this machine has, got cuda:{missing[0]}")
    return tuple(f"cuda:{number}" for number in numbers or range(there))


def choose_batch_size(batch_size: int | None, devices: tuple[str, ...]) -> int:
    """Return the number of images in a forward pass: as asked for, or what suits the devices."""
    return batch_size or (BATCH_SIZE_CPU if devices == CPU else BATCH_SIZE_CUDA)


def _name_of(number: int) -> str:
    """Return what a GPU is called in every process, whatever CUDA_VISIBLE_DEVICES makes of its number."""
    return str(torch.cuda.get_device_properties(number).uuid)


def _why() -> str:
    if torch.version.cuda is None:
        return "this torch was built without CUDA; install one with it, or take device cpu"
    return "nvidia-smi shows whether the driver sees one; or take device cpu"
