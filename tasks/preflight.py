"""Checks of a flow's parameters against the world that cost nothing: before servers start and models load."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_object_url
from labelmill.schemas.parameters import (
    AnchorsParameters,
    AugmentParameters,
    ChooseParameters,
    DisagreementsParameters,
    DivideParameters,
    DomainsParameters,
    ExportLabelMapsParameters,
    ExportParameters,
    ExtractParameters,
    FindLeaksParameters,
    FlowParameters,
    ImagenetPipelineParameters,
    ImportLabelMapsParameters,
    IngestCifarParameters,
    IngestImagenetParameters,
    IngestLsunParameters,
    IngestParameters,
    IngestSettings,
    IngestSvhnParameters,
    PseudolabelParameters,
    PseudoReportParameters,
    RelabelParameters,
    RenameParameters,
    StatisticsParameters,
    TeacherParameters,
    TrainParameters,
    VerdictsParameters,
)
from labelmill.tasks.anchors.preflight import check_anchors
from labelmill.tasks.augmentation.preflight import check_augment
from labelmill.tasks.boxes.preflight import check_annotated
from labelmill.tasks.cifar.files import choose_files, find_cifar_files
from labelmill.tasks.export.preflight import check_dataset
from labelmill.tasks.ingest.list_files import is_text
from labelmill.tasks.ingest.sources import holds_files, is_archive
from labelmill.tasks.label_map_files.preflight import check_export, check_import, check_writable
from labelmill.tasks.lsun.environments import find_environments
from labelmill.tasks.pseudo_labels.preflight import check_pseudolabel
from labelmill.tasks.selection.preflight import check_choose
from labelmill.tasks.selection.verdict_file import check_verdicts
from labelmill.tasks.shards import find_roots
from labelmill.tasks.store import open_store
from labelmill.tasks.svhn.digits import find_svhn_files
from labelmill.tasks.train.preflight import check_train

_NO_FILE = ("pretrained", "package:")


def check_parameters(parameters: FlowParameters) -> None:
    """Raise BadInput or NotInStore for what can be seen to be wrong without any work."""
    for name, value in parameters:
        if isinstance(value, str) and not is_text(value):  # no version file could hold it
            raise BadInput(f"{name}: expected valid UTF-8, got {os.fsencode(value)!r}")
    for kinds, check in _CHECKS:
        if isinstance(parameters, kinds):
            check(parameters)


def _check_images(parameters: RelabelParameters | StatisticsParameters | DivideParameters) -> None:
    version = open_store(parameters.store).table(f"{parameters.dataset}.images").version(parameters.images_version)
    if not isinstance(parameters, DivideParameters):
        find_roots(version, split=parameters.split, image_root=parameters.image_root)


def _check_report(
    parameters: StatisticsParameters
    | AugmentParameters
    | AnchorsParameters
    | ImagenetPipelineParameters
    | PseudoReportParameters
    | DisagreementsParameters,
) -> None:
    """Raise BadInput when the page, which is written after all work, could not be."""
    if parameters.report is None:
        return
    if os.path.isdir(parameters.report):
        raise BadInput(f"report: {parameters.report} is a folder; expected a file such as report.html")
    check_writable("report", Path(parameters.report).parent)


def _check_augment(parameters: AugmentParameters) -> None:
    check_augment(parameters)
    if parameters.out is not None:
        _check_out(parameters.out, parameters.store)


def _check_tables(parameters: FindLeaksParameters) -> None:
    for name in parameters.tables.split(","):
        open_store(parameters.store).table(name.strip()).version()


def _check_teacher(parameters: TeacherParameters) -> None:
    _check_runner(parameters.runner)
    if not parameters.weights.startswith(_NO_FILE) and not os.path.isfile(parameters.weights):
        raise BadInput(f"weights: no such file: {parameters.weights}; or give package:NAME or pretrained")


def _check_extract(parameters: ExtractParameters) -> None:
    _check_archive(parameters.source)
    check_writable("out", Path(parameters.out))


def _check_runner(runner: str) -> None:
    if runner != "threads" and find_spec(f"prefect_{runner}") is None:
        raise BadInput(f"runner: {runner} is not installed: pip install 'labelmill[{runner}]'")


def _check_rename(parameters: RenameParameters) -> None:
    if parameters.undo is not None and not os.path.isfile(parameters.undo):
        raise BadInput(f"undo: no such journal: {parameters.undo}")
    if parameters.undo is None and parameters.source is None:
        raise BadInput("source: expected the folder whose files to rename, or --undo with a journal")
    if parameters.source is not None:
        if not os.path.isdir(parameters.source):
            raise BadInput(f"source: no such folder: {parameters.source}")
        if not parameters.dry_run:
            check_writable("source", Path(parameters.source))
    if parameters.undo is None and not parameters.dry_run:
        check_writable("journal", Path(parameters.journal or str(parameters.source)).parent)


def _check_ingest(parameters: IngestSettings) -> None:
    if isinstance(parameters, IngestLsunParameters):
        find_environments(parameters.source, parameters.split)
    elif isinstance(parameters, IngestCifarParameters):
        choose_files(find_cifar_files(parameters.source), parameters.split)
    elif isinstance(parameters, IngestSvhnParameters):
        find_svhn_files(parameters.source, parameters.split)
    elif isinstance(parameters, IngestParameters):
        _check_source("source", parameters.source)
    check_annotated(parameters, _check_source)
    if (out := getattr(parameters, "out", None)) is not None:
        _check_out(out, parameters.store)
    devkit = parameters.devkit if isinstance(parameters, IngestImagenetParameters) else None
    if devkit is not None and not os.path.isdir(devkit):
        raise BadInput(f"devkit: no such folder: {devkit}")
    real = parameters.real if isinstance(parameters, IngestImagenetParameters) else None
    if real is not None and (devkit is None or not os.path.isfile(real)):
        raise BadInput(f"real: no such file: {real}" if devkit else "real: needs --devkit, whose classes it counts in")
    if is_object_url(parameters.store):
        open_store(parameters.store, create=True)
    else:
        check_writable("store", Path(parameters.store, parameters.dataset, "images"))


def _check_out(out: str, store: str) -> None:
    """Raise BadInput when files cannot be written to a folder, or would lie in the store."""
    check_writable("out", Path(out))
    if not is_object_url(store) and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(store)):
        raise BadInput(f"out: {out} lies in the store; choose another folder")


def _check_source(field: str, source: str) -> None:
    """Raise BadInput when a folder or an archive cannot be read, or nothing lies below a URL."""
    if is_object_url(source):
        if not holds_files(source):
            if source.lower().endswith((".tar", ".zip")):
                raise BadInput(f"{field}: {source}: an archive is read in a folder, not in a bucket; fetch it first")
            raise BadInput(f"{field}: {source} holds no objects; expected a place with images")
        return
    try:
        if not os.path.isfile(source):
            os.scandir(source).close()
        elif not is_archive(source):
            raise BadInput(
                f"{field}: {source}: neither a tar nor a zip, or damaged; expected a folder with images, a tar or a zip"
            )
    except OSError as error:
        raise BadInput(f"{field}: {source}: {error.strerror}; expected a folder with images, a tar or a zip") from error


def _check_archive(source: str) -> None:
    """Raise BadInput when there is no tar or zip."""
    try:
        found = is_archive(source)
    except OSError as error:
        raise BadInput(f"source: {source}: {error.strerror}; expected a tar or a zip") from error
    if not found:
        raise BadInput(f"source: {source}: neither a tar nor a zip")


def refuse_store_in_source(folder: str | Path, root: str) -> None:
    """Raise BadInput when a folder of the store lies below the images' root: an ingest would take in its files."""
    if is_object_url(folder) or is_object_url(root):
        below = f"{folder}/".startswith(f"{root}/")
    else:
        below = Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))
    if below:
        raise BadInput(f"store: {folder} lies below the images in {root} and would be ingested too; choose another")


_CHECKS: tuple[tuple[type | UnionType, Callable[[Any], object]], ...] = (
    (StatisticsParameters | AugmentParameters | AnchorsParameters | ImagenetPipelineParameters, _check_report),
    (IngestSettings, _check_ingest),
    (ExtractParameters, _check_extract),
    (AugmentParameters, _check_augment),
    (RelabelParameters | StatisticsParameters | DivideParameters, _check_images),
    (PseudoReportParameters | DisagreementsParameters, _check_report),
    (ChooseParameters, check_choose),
    (VerdictsParameters, check_verdicts),
    (DomainsParameters, lambda given: open_store(given.store).table(f"{given.other}.images").version()),
    (FindLeaksParameters, _check_tables),
    (TeacherParameters, _check_teacher),
    (PseudolabelParameters, check_pseudolabel),
    (ImportLabelMapsParameters, check_import),
    (ExportLabelMapsParameters, check_export),
    (ExportParameters, check_dataset),
    (ExportParameters, lambda given: _check_out(given.out, given.store)),
    (RenameParameters, _check_rename),
    (AnchorsParameters, check_anchors),
    (TrainParameters, check_train),
    (TrainParameters, lambda given: _check_out(given.out, given.store)),
)
"""Each of them looks at the parameters that are of its kind."""
