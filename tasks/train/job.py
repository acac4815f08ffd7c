"""Training from its parameters to its versions, in steps that a flow calls in turn."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from labelmill.models.students import describe_student
from labelmill.models.trained_weights import encode_trained
from labelmill.schemas.parameters import TrainParameters
from labelmill.schemas.training import CHECKPOINTS_SCHEMA, TRAINING_SCHEMA
from labelmill.schemas.versions import Part, Version
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.relabel.devices import CPU, choose_devices
from labelmill.tasks.store import Change
from labelmill.tasks.store.files import replace_file
from labelmill.tasks.train.learners import build_batches, build_objective
from labelmill.tasks.train.loop import LoopFacts, OnSteps, TrainingLoop
from labelmill.tasks.train.measure import Accuracy, measure
from labelmill.tasks.train.plan import TrainingPlan

STUDENT_FILE, CLASSES_FILE, CURVES_FILE = "student.safetensors", "classes.txt", "curves.html"

_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What the first process of a run hands over: the parts it wrote, and how it went.

    kept_step: steps after which the student is as it was kept; rejected: images of the training that were left out.
    """

    curves: tuple[Part, ...]
    checkpoints: tuple[Part, ...]
    weights: bytes
    kept_step: int
    accuracy: Accuracy
    validation_accuracy: float | None
    loop: LoopFacts
    rejected: dict[str, int]


def pin_versions(plan: TrainingPlan) -> TrainParameters:
    """Return a plan's parameters with the versions that it read, which later ones must not replace."""
    given, inputs = plan.parameters, plan.inputs
    versions: dict[str, Any] = {"images_version": inputs[f"{given.dataset}.images"]}
    if plan.maps is not None:
        versions["label_maps_version"] = plan.maps.version.number
    if plan.manifest is not None:
        versions["manifest_version"] = plan.manifest.version
    return given.model_copy(update=versions)


def train_process(plan: TrainingPlan, *, on_steps: OnSteps, on_images: Callable[[int, int], None]) -> Trained | None:
    """Train in this process, one of those that share a run; return what came of it in the first, None in others.

    Raises WorkFailed when the process was asked to stop.
    """
    accelerator = open_accelerator(plan.parameters)
    ranks, rank = accelerator.num_processes, accelerator.process_index
    if accelerator.device.type == "cpu":
        torch.set_num_threads(choose_threads(plan.parameters))
    loop = TrainingLoop(plan, build_objective(plan, accelerator), accelerator)
    build = partial(build_batches, plan, rank=rank, ranks=ranks, on_images=on_images)
    facts = loop.run(build, workers=choose_workers(plan.parameters, accelerator), on_steps=on_steps)
    if loop.records is None:
        return None
    model, kept_step = loop.finish()
    weights = encode_trained(model, describe_student(plan.student, plan.classes))
    student = loop.records.write_student(weights, step=kept_step)
    curves, states = loop.records.parts()
    max_pixels = plan.parameters.max_pixels
    rejected = Counter(plan.labelled.rejected) + Counter(loop.lost)
    if plan.unlabelled is not None and plan.unlabelled.rejected is not plan.labelled.rejected:
        rejected += Counter(plan.unlabelled.rejected)  # of another split or dataset
    if plan.manifest is not None and plan.manifest.missing:
        rejected["not_among_images"] += len(plan.manifest.missing)
    return Trained(
        curves=tuple(curves), checkpoints=(student, *states), weights=weights, kept_step=kept_step,
        accuracy=measure(model, plan.test, plan.student.preprocessing, max_pixels=max_pixels),
        validation_accuracy=loop.best_accuracy, loop=facts, rejected=dict(sorted(rejected.items())),
    )  # fmt: skip


def open_accelerator(parameters: TrainParameters) -> Accelerator:
    """Return accelerate's view of this process: its device, its precision and its place among the processes."""
    devices = choose_devices(parameters.device) if parameters.processes == 1 else CPU
    os.environ.pop("ACCELERATE_TORCH_DEVICE", None)  # of an earlier run of this process
    if devices != CPU:
        os.environ["ACCELERATE_TORCH_DEVICE"] = devices[0]
    AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier run of this process, perhaps on a device
    on_cpu = torch.cuda.device_count() == 0 or parameters.device == "cpu"
    return Accelerator(cpu=on_cpu, mixed_precision=_MIXED[parameters.precision])


def choose_threads(parameters: TrainParameters) -> int:
    """Return the threads of a CPU's arithmetic in each process, half of the cores: batches are made in the others.

    Their number decides the order of sums, so it must not depend on the number of workers.
    """
    return parameters.threads or max(1, (os.cpu_count() or 1) // 2 // parameters.processes)


def choose_workers(parameters: TrainParameters, accelerator: Accelerator) -> int:
    """Return how many processes make the batches of this one: beside a GPU all cores' worth, on a CPU a half's."""
    if parameters.workers is not None:
        return parameters.workers
    cores = os.cpu_count() or 1
    share = cores if accelerator.device.type == "cuda" else cores // 2
    return max(1, share // int(accelerator.num_processes))


def commit_training(plan: TrainingPlan, trained: Trained) -> tuple[Version, Version]:
    """Make the run's checkpoints a version, add its curves to those of earlier runs; return both versions."""
    teacher = None if plan.maps is None else plan.maps.version.lineage.teacher
    lineage = make_lineage("train", pin_versions(plan), inputs=plan.inputs, teacher=teacher)

    def add(latest: Version | None) -> Change | None:
        known = latest.parts if latest else ()
        fresh = [part for part in trained.curves if part not in known]
        if latest is not None and not fresh:
            return None
        return Change(operation="append", parts=[*known, *fresh], metadata={"kind": "training"})

    curves = plan.training.commit(add, schema=TRAINING_SCHEMA, lineage=lineage)
    checkpoints = plan.checkpoints.replace(
        trained.checkpoints, schema=CHECKPOINTS_SCHEMA, metadata=_describe(plan, trained), lineage=lineage
    )
    for table in (plan.checkpoints, plan.training):
        table.receipts.close_run(plan.run)
    return checkpoints, curves


def _describe(plan: TrainingPlan, trained: Trained) -> dict[str, Any]:
    student, given = plan.student, plan.parameters
    return {
        "kind": "checkpoints",
        "run": plan.run,
        "objective": given.objective,
        "student": {
            "name": student.name,
            "library": student.library,
            "weights": student.weights_source,
            "weights_digest": student.weights_digest,
            "preprocessing": student.preprocessing.facts(),
        },
        "classes": plan.classes.model_dump(mode="json"),
        "labelled": len(plan.labelled),
        "unlabelled": 0 if plan.unlabelled is None else len(plan.unlabelled),
        "kept_step": trained.kept_step,
        "accuracy": round(trained.accuracy.value, 6),
        "measured_on": {"table": plan.test.table, "version": plan.test.version, "images": trained.accuracy.images},
        "validation_accuracy": trained.validation_accuracy,
    }


def write_files(plan: TrainingPlan, trained: Trained, page: str) -> Path:
    """Write the student, its classes and its curves into the folder of the parameters; return the student's file."""
    out = Path(plan.parameters.out)
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"{c.wnid}\t{c.name}" if c.wnid else c.name for c in plan.classes.classes]
    replace_file(out / CLASSES_FILE, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
    replace_file(out / CURVES_FILE, page.encode("utf-8", "backslashreplace"))
    replace_file(out / STUDENT_FILE, trained.weights)
    return out / STUDENT_FILE
