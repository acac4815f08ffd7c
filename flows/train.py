"""The flow that trains a student on what the stores hold."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import TrainParameters
from labelmill.tasks.progress import ProgressMeter

if TYPE_CHECKING:
    from labelmill.schemas.versions import Version
    from labelmill.tasks.train.job import Trained
    from labelmill.tasks.train.plan import TrainingPlan


@define_flow("train", TrainParameters, run_name="train {student} on {dataset} by {objective}")
def train(parameters: TrainParameters) -> Outcome:
    """Train a student on what the stores hold, and keep its weights, its curves and where its labels came from."""
    from labelmill.tasks.train.job import commit_training, write_files
    from labelmill.tasks.train.page import build_training_page
    from labelmill.tasks.train.plan import plan_training

    started = time.monotonic()
    plan = plan_training(parameters)
    trained = _train_student(f"{parameters.student} on {parameters.dataset}", untracked(plan))
    checkpoints, curves = commit_training(plan, trained)
    file = write_files(plan, trained, build_training_page(plan.training, curves, checkpoints))
    return _describe(plan, trained, checkpoints, str(file), time.monotonic() - started)


@task(name="train-student", task_run_name="{of}", cache_policy=NO_CACHE)
def _train_student(of: str, plan: TrainingPlan) -> Trained:
    from labelmill.tasks.train.processes import train_student

    given = plan.parameters
    meter = ProgressMeter("steps", given.steps)
    trained = train_student(plan, on_steps=lambda done, reused: meter.add(done=done, reused=reused))
    meter.finish()
    return trained


def _describe(plan: TrainingPlan, trained: Trained, version: Version, file: str, seconds: float) -> Outcome:
    given, loop, accuracy = plan.parameters, trained.loop, trained.accuracy
    facts = {
        "student": f"{plan.student.name}, from weights {plan.student.weights_source}",
        "learnt from": f"{len(plan.labelled):,} labelled images"
        + ("" if plan.unlabelled is None else f", {len(plan.unlabelled):,} others"),
        "kept": f"after step {trained.kept_step:,} of {given.steps:,}",
        "measured on": f"{accuracy.images:,} images of {plan.test.table} v{plan.test.version}",
        "weights": file,
        "curves": f"{plan.training.name}, run {plan.run[:16]}",
    }
    if trained.validation_accuracy is not None:
        facts["validation"] = f"{trained.validation_accuracy:.4f} on {len(plan.validation):,} images"
    if loop.steps:
        facts["speed"] = (
            f"{loop.images / loop.seconds:,.0f} views/s, {100 * loop.waited_s / loop.seconds:.0f} % of the time "
            "waiting for data"
        )
    if accuracy.unlabelled or accuracy.rejected:
        facts["not measured"] = f"{accuracy.unlabelled:,} without a class, {sum(accuracy.rejected.values()):,} rejected"
    return Outcome(
        title=f"train: {given.dataset} by {given.objective}",
        table=plan.checkpoints.name,
        version=version.number,
        counted="steps",
        images=given.steps,
        done=given.steps,
        rejected=trained.rejected,
        seconds=seconds,
        worked=loop.steps,
        facts=facts,
        verdict=f"accuracy: {accuracy.value:.4f}",
    )
