"""Flows that bring CIFAR and SVHN into a store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from labelmill.flows.definition import define_flow
from labelmill.flows.ingest import ingest_run, join_outcomes
from labelmill.flows.untracked import untracked
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import IngestCifarParameters, IngestSvhnParameters
from labelmill.tasks.progress import ProgressMeter

if TYPE_CHECKING:
    from labelmill.tasks.ingest.list_files import ListedFile
    from labelmill.tasks.svhn.digits import SvhnDigits


@define_flow("ingest-cifar", IngestCifarParameters, run_name="ingest-cifar {dataset} {split}")
def ingest_cifar(parameters: IngestCifarParameters) -> Outcome:
    """Ingest CIFAR-10 or CIFAR-100 in their binary or python version; the pixels stay where they are."""
    from labelmill.tasks.cifar.job import prepare_cifar

    outcomes = [ingest_run(run, time.monotonic()) for run in prepare_cifar(parameters)]
    return join_outcomes(outcomes, f"ingest-cifar {parameters.dataset}, train and test")


@define_flow("ingest-svhn", IngestSvhnParameters, run_name="ingest-svhn {dataset} {split}")
def ingest_svhn(parameters: IngestSvhnParameters) -> Outcome:
    """Ingest SVHN's cropped digits: train_32x32.mat and its kin, whose images are written out as PNG files."""
    from labelmill.tasks.svhn.digits import find_svhn_files

    outcomes = [
        _ingest_split(parameters.model_copy(update={"split": split}), path)
        for split, path in find_svhn_files(parameters.source, parameters.split).items()
    ]
    return join_outcomes(outcomes, f"ingest-svhn {parameters.dataset}, all splits")


def _ingest_split(parameters: IngestSvhnParameters, path: str) -> Outcome:
    from labelmill.tasks.svhn.digits import read_digits
    from labelmill.tasks.svhn.job import prepare_svhn

    started = time.monotonic()
    digits = read_digits(path)
    files: list[ListedFile] = []
    _write_digits(parameters.split, untracked((parameters, digits, files)))
    return ingest_run(prepare_svhn(parameters, files, digits), started)


@task(name="write-digits", task_run_name="write {split}", cache_policy=NO_CACHE)
def _write_digits(split: str, work: tuple[IngestSvhnParameters, SvhnDigits, list[ListedFile]]) -> None:
    """Add the files to the last of `work`: Prefect would look through what a task returns."""
    from labelmill.tasks.svhn.job import write_digits
    from labelmill.tasks.written.file_tree import FileTree

    parameters, digits, files = work
    meter = ProgressMeter("files", len(digits))
    with FileTree(parameters.out) as tree:
        files += write_digits(
            digits,
            split,
            tree,
            workers=parameters.workers,
            on_batch=lambda written, kept: meter.add(done=written, reused=kept),
        )
    meter.finish()
