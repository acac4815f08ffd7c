"""One process or several that share a run's steps, each with its share of every batch."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from threading import Thread
from typing import Any

from torch import multiprocessing
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.parameters import TrainParameters
from labelmill.tasks.end_with_parent import end_with_parent
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import ask_to_stop, check_stop
from labelmill.tasks.train.job import Trained, pin_versions, train_process
from labelmill.tasks.train.loop import OnSteps
from labelmill.tasks.train.plan import TrainingPlan, plan_training

_LOUD = ("torch.distributed.elastic.multiprocessing.api", "torch.multiprocessing.spawn")
"""Loggers that write the traceback of a process that ended; why it did is told once, in a line."""

_NOT_FOR_USERS = ("OMP_NUM_THREADS/MKL_NUM_THREADS unset", "Grad strides do not match bucket view strides")
"""Warnings of accelerate and torch about choices that are ours: threads, and weights that lie channels last."""


def train_student(plan: TrainingPlan, *, on_steps: OnSteps) -> Trained:
    """Train in as many processes as the parameters say; raise WorkFailed when one of them ends before its time."""
    if plan.parameters.processes > 1:
        return _launch(plan, on_steps)
    images = len(plan.labelled) + (0 if plan.unlabelled is None else len(plan.unlabelled))
    meter = ProgressMeter("images read", images)
    trained = train_process(
        plan, on_steps=on_steps, on_images=lambda done, rejected: meter.add(done=done, rejected=rejected)
    )
    assert trained is not None  # noqa: S101 - the only process is the first
    return trained


def _launch(plan: TrainingPlan, on_steps: OnSteps) -> Trained:
    given = pin_versions(plan)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = multiprocessing.get_context("spawn")
    told: Any = context.SimpleQueue()
    asked_to_stop: Any = context.Event()
    listener = Thread(target=_listen, args=(told, asked_to_stop, on_steps), daemon=True)
    listener.start()
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=given.processes, run_id=plan.run, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.5,
    )  # fmt: skip
    if hasattr(config, "signals_to_handle"):  # not in older versions of torch
        config.signals_to_handle = "SIGHUP,SIGQUIT"  # those that ask to stop are ours
    try:
        results = elastic_launch(config, _run_rank)(
            given.model_dump(mode="json"), plan.run, plan.inputs, told, asked_to_stop
        )
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        said = failure.message if isinstance(failure.message, str) else str(failure.message.get("message", ""))
        raise WorkFailed(
            f"process {rank} of {given.processes} ended: {said.splitlines()[0] if said else 'killed'}"
        ) from error
    finally:
        told.put(None)
        listener.join(timeout=10)
    trained: Trained = results[0]
    return trained


def _listen(told: Any, asked_to_stop: Any, on_steps: OnSteps) -> None:  # noqa: ANN401 - a context's queue and event
    while (steps := told.get()) is not None:
        on_steps(*steps)
        try:
            check_stop()
        except WorkFailed:
            asked_to_stop.set()


def plan_alike(given: dict[str, Any], run: str, inputs: dict[str, int]) -> TrainingPlan:
    """Return the plan of a run's parameters; raise WorkFailed when it reads other data than that of `run` did."""
    plan = plan_training(TrainParameters.model_validate(given))
    changed = sorted(name for name in inputs if plan.inputs.get(name) != inputs[name])
    if changed or plan.run != run:
        what = f"{', '.join(changed)} got a new version" if changed else "files that it reads changed"
        raise WorkFailed(f"{what} while the run began; run the same command again")
    return plan


def _run_rank(
    given: dict[str, Any],
    run: str,
    inputs: dict[str, int],
    told: Any,  # noqa: ANN401 - see _listen
    asked_to_stop: Any,  # noqa: ANN401
) -> Trained | None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    end_with_parent()
    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message)
    plan = plan_alike(given, run, inputs)
    first = os.environ["RANK"] == "0"

    def tell(done: int, reused: int) -> None:
        if asked_to_stop.is_set():
            ask_to_stop()  # at the next step
        if first:
            told.put((done, reused))

    return train_process(plan, on_steps=tell, on_images=lambda images, rejected: None)
