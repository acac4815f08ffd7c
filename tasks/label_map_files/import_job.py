"""An import of label map files from its parameters to its version, in steps that a flow calls in turn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelmill.models.class_match import ClassMatch, match_classes
from labelmill.models.known_classes import read_teacher_classes
from labelmill.models.label_encoding import ENCODING_REVISION, LOGIT_STEP
from labelmill.models.label_map_tensor import TensorMeaning
from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.label_maps import LabelMapMetadata
from labelmill.schemas.parameters import ImportLabelMapsParameters, parse_input_size
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.commit_label_maps import commit_label_maps
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.label_map_files.import_shard import ImportJob, plan_import_shards
from labelmill.tasks.label_map_files.list_map_files import WantedFiles, find_wanted, list_map_files
from labelmill.tasks.label_map_files.preflight import check_import
from labelmill.tasks.label_map_files.probe_files import probe_files
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.relabel.settings import numerics
from labelmill.tasks.shards import Shard
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt

IMPORT_REVISION = 1
"""Part of every shard's key: a change of what is made of a file takes another number."""

LAYOUT = "relabel_imagenet: [2, k, H, W], scores and class ids"

LISTED_CLASSES_MAX = 2**16
"""A map's cells point into its list of classes with 16 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportRun:
    """A prepared import: the job that its shards share, the shards, and what the version will say.

    `unmatched` are the files, by path, that belong to no image of the table.
    """

    parameters: ImportLabelMapsParameters
    job: ImportJob
    shards: tuple[Shard, ...]
    images_version: Version
    classes: ClassList | None
    match: ClassMatch
    unmatched: tuple[str, ...]

    @property
    def images(self) -> int:
        """Rows that the version will have."""
        return sum(len(shard) for shard in self.shards)


def prepare_import(parameters: ImportLabelMapsParameters) -> ImportRun:
    """List the files, find out their shape, match the classes and plan the shards.

    Raises NotInStore or BadInput before any work when a parameter does not fit the store or the files.
    """
    check_import(parameters)
    classes = read_teacher_classes(parameters.classes, parameters.num_classes)
    store = open_store(parameters.store)
    images, label_maps = (store.table(f"{parameters.dataset}.{name}") for name in ("images", "label_maps"))
    version = images.version(parameters.images_version)
    files = list_map_files(parameters.source)
    wanted = find_wanted(images, version, parameters.split)
    meaning = _find_meaning(parameters, files, wanted)
    match = match_classes(read_classes(version.metadata), classes)
    common = {
        "import": IMPORT_REVISION,
        "encoding": ENCODING_REVISION,
        "meaning": asdict(meaning),
        "numerics": numerics(),
    }
    run = digest_json(
        {"common": common, "images": version.sha256, "split": parameters.split, "source": parameters.source}
    )
    job = ImportJob(
        images=images, label_maps=label_maps, source=Path(parameters.source), files=files, shared=wanted.shared,
        meaning=meaning, teacher_labels=match.teacher_ids, workers=parameters.workers or os.cpu_count() or 1, run=run,
    )  # fmt: skip
    shards = plan_import_shards(job, version, split=parameters.split, shard_size=parameters.shard_size, common=common)
    label_maps.receipts.open_run(run)
    return ImportRun(
        parameters=parameters, job=job, shards=tuple(shards), images_version=version, classes=classes, match=match,
        unmatched=tuple(sorted(files.keys() - wanted.known)),
    )  # fmt: skip


def _find_meaning(
    parameters: ImportLabelMapsParameters, files: Mapping[str, ListedFile], wanted: WantedFiles
) -> TensorMeaning:
    candidates = [files[path] for path in wanted.wanted if path in files]
    if not candidates:
        looked_for = wanted.wanted[0] if wanted.wanted else "none: the table has no images of that split"
        raise BadInput(
            f"source: none of its {len(files)} .pt files belongs to an image of {parameters.dataset}.images; "
            f"looked for {looked_for!r}, found {next(iter(files))!r}"
        )
    shape = probe_files(
        Path(parameters.source),
        candidates,
        transposed=parameters.transposed,
        scores_are_logits=parameters.scores_are_logits,
    )
    if min(parameters.num_classes, shape[0] * shape[1] * shape[2]) > LISTED_CLASSES_MAX:
        raise BadInput(f"source: maps of (k, H, W) {shape} may list more than {LISTED_CLASSES_MAX} classes each")
    return TensorMeaning(
        shape=shape,
        num_classes=parameters.num_classes,
        transposed=parameters.transposed,
        scores_are_logits=parameters.scores_are_logits,
        step=LOGIT_STEP,
    )


def commit_import(run: ImportRun, receipts: Sequence[Receipt]) -> Version:
    """Make the run's shards a version, in their order; return the latest as it is when it holds just these.

    Raises WorkFailed when not one map could be imported: a version without maps would hide an older one.
    """
    if not sum(receipt.counts["done"] for receipt in receipts):
        raise WorkFailed(
            f"none of {run.images} images got a map from {run.parameters.source}; nothing was committed. Do "
            "num_classes and the images' folders fit the files?"
        )
    inputs = {run.job.images.name: run.images_version.number}
    return commit_label_maps(
        run.job.label_maps,
        receipts,
        metadata=_metadata(run),
        lineage=make_lineage("import-label-maps", run.parameters, inputs=inputs, teacher=_teacher_facts(run)),
        run=run.job.run,
    )


def _metadata(run: ImportRun) -> LabelMapMetadata:
    top_k, height, width = run.job.meaning.shape
    return LabelMapMetadata(
        grid=(height, width),
        top_k=top_k,
        input_size=parse_input_size(run.parameters.input_size),
        logit_step=run.job.meaning.step,
        num_classes=run.job.meaning.num_classes,
        classes=run.classes,
        temperature=1.0,
        absent_share=0.0,
        calibration={"images": 0, "target": "none: imported maps pool as in the paper"},
        label_match=run.match.facts(),
        teacher=_teacher_facts(run),
        logits="as_imported",
        outside_known=False,
    )


def _teacher_facts(run: ImportRun) -> dict[str, Any]:
    """Return what is known of a teacher that never ran here: its name is only what the user says."""
    return {
        "name": run.parameters.teacher,
        "imported": LAYOUT,
        "transposed": run.parameters.transposed,
        "num_classes": run.parameters.num_classes,
        "classes": run.classes.source if run.classes else None,
        "classes_digest": run.classes.digest() if run.classes else None,
    }
