"""A training run from its parameters: images, labels, tables, and the digest of all that decides its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from labelmill.models.students import Student, build_student
from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import TrainParameters, parse_device
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.relabel.settings import numerics
from labelmill.tasks.store import Store, Table, open_store
from labelmill.tasks.train.examples import NO_CLASS, Examples, choose_labelled, read_examples
from labelmill.tasks.train.manifest import ManifestLabels, read_manifest
from labelmill.tasks.train.order import hash_seed
from labelmill.tasks.train.splits import choose_split, choose_test_split
from labelmill.tasks.train.views import FittedViews

REVISION = "train 1"
"""Counts up when the same parameters would give other weights."""

_NOT_OF_THE_WEIGHTS = {
    "store", "out", "image_root", "workers", "cache_mb", "device", "eval_dataset", "eval_split", "images_version",
    "label_maps_version", "manifest_version", "checkpoint_every", "student_weights", "weak_policy", "strong_policy",
}  # fmt: skip
"""Parameters that change no weight, or only through the tables and files that they name, whose digests count."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingPlan:
    """What a run learns from and is measured on.

    classes are the student's; labelled, validation, unlabelled and test are apart but for `unlabelled`, which holds the
    labelled images too unless they are from elsewhere; manifest and maps belong to
    the objectives pseudo and relabel. inputs: tables and versions; run: digest of all that decides the weights.
    """

    parameters: TrainParameters
    classes: ClassList
    student: Student
    labelled: Examples
    validation: Examples
    unlabelled: Examples | None
    test: Examples
    manifest: ManifestLabels | None
    maps: LabelMaps | None
    inputs: dict[str, int]
    checkpoints: Table
    training: Table
    run: str

    @property
    def input_size(self) -> int:
        """Pixels of height and width."""
        return int(self.student.preprocessing.native_size[0])

    def weak_views(self) -> FittedViews:
        """Return the views of labelled images, and of targets."""
        return self._views("weak")

    def strong_views(self) -> FittedViews:
        """Return the views that a student has to name as it names the weak ones."""
        return self._views("strong")

    def _views(self, kind: str) -> FittedViews:
        field = f"{kind}_policy"
        return FittedViews(
            getattr(self.parameters, field), auto=kind, size=self.input_size, seed=self.parameters.seed, field=field
        )


def plan_training(parameters: TrainParameters) -> TrainingPlan:
    """Read what a run needs from its store and build its student.

    Raises BadInput and NotInStore, naming the field, for what does not fit together.
    """
    if parameters.precision == "fp16" and device_kind(parameters.device) == "cpu":
        raise BadInput("precision: fp16 needs a GPU; expected fp32 or bf16 on a CPU")
    store = open_store(parameters.store)
    images = store.table(f"{parameters.dataset}.images")
    version = images.version(parameters.images_version)
    inputs = {images.name: version.number}
    maps = _open_maps(store, parameters, inputs) if parameters.objective == "relabel" else None
    manifest = _open_manifest(store, parameters, inputs) if parameters.objective == "pseudo" else None
    classes = _find_classes(version, maps, manifest)
    split = choose_split(parameters.split, version)
    found = read_examples(images, version, split=split, image_root=parameters.image_root, classes=classes)
    labelled, validation = _choose(parameters, found, maps)
    test = _read_test(store, parameters, version, classes, inputs)
    pool = _read_pool(store, parameters, version, found, classes, inputs)
    unlabelled = None if pool is None else _choose_unlabelled(pool, validation, test, manifest)
    student = start_student(parameters, classes)
    plan = TrainingPlan(
        parameters=parameters, classes=classes, student=student, labelled=labelled, validation=validation,
        unlabelled=unlabelled, test=test, manifest=manifest, maps=maps, inputs=inputs,
        checkpoints=store.table(f"{parameters.dataset}.checkpoints"),
        training=store.table(f"{parameters.dataset}.training"), run="",
    )  # fmt: skip
    return _with_run(plan)


def start_student(parameters: TrainParameters, classes: ClassList, *, role: str = "student") -> Student:
    """Build a student; its random weights are those of the seed and the role alone."""
    torch.manual_seed(hash_seed(role, parameters.seed))
    return build_student(
        parameters.student, num_classes=len(classes), weights=parameters.student_weights,
        input_size=parameters.input_size, classes=classes,
    )  # fmt: skip


def _open_maps(store: Store, parameters: TrainParameters, inputs: dict[str, int]) -> LabelMaps:
    name = parameters.label_maps or f"{parameters.dataset}.label_maps"
    maps = LabelMaps(store, name, parameters.label_maps_version)
    inputs[name] = maps.version.number
    return maps


def _open_manifest(store: Store, parameters: TrainParameters, inputs: dict[str, int]) -> ManifestLabels:
    name = parameters.manifest or f"{parameters.unlabelled_dataset or parameters.dataset}.manifest"
    manifest = read_manifest(store.table(name), parameters.manifest_version)
    inputs[name] = manifest.version
    return manifest


def _find_classes(version: Version, maps: LabelMaps | None, manifest: ManifestLabels | None) -> ClassList:
    if maps is not None:
        found = maps.metadata.classes
    elif manifest is not None:
        found = manifest.classes
    else:
        found = read_classes(version.metadata)
    if found is None or len(found) < 2:
        raise BadInput(f"dataset: expected two classes or more to learn, {version.table} has {len(found or ())}")
    return found


def _choose(parameters: TrainParameters, found: Examples, maps: LabelMaps | None) -> tuple[Examples, Examples]:
    seed = parameters.seed if parameters.label_seed is None else parameters.label_seed
    chosen, aside = choose_labelled(
        found, per_class=parameters.labels_per_class, skip_per_class=parameters.validation_per_class, seed=seed
    )
    if maps is not None:
        if parameters.labels_per_class is None:  # their own labels are not needed
            chosen = np.setdiff1d(np.arange(len(found)), aside)
        chosen = chosen[maps.has_map(maps.rows_of(found.take(chosen).ids())).numpy()]
    if not len(chosen) and parameters.objective != "pseudo":
        raise BadInput(f"objective: {parameters.objective} needs labelled images, {found.table} has none for it")
    return found.take(chosen), found.take(aside)


def _read_pool(
    store: Store,
    parameters: TrainParameters,
    version: Version,
    found: Examples,
    classes: ClassList,
    inputs: dict[str, int],
) -> Examples | None:
    """Return the images to take unlabelled ones from; `found` are those of the split with the labelled ones."""
    if parameters.objective in ("supervised", "relabel"):
        return None
    own = parameters.unlabelled_dataset in (None, parameters.dataset)
    if own and parameters.unlabelled_split is None:
        return found
    table = store.table(f"{parameters.unlabelled_dataset or parameters.dataset}.images")
    chosen = version if own else table.version()
    inputs[table.name] = chosen.number
    split = choose_split(parameters.unlabelled_split, chosen)
    return read_examples(table, chosen, split=split, image_root=None, classes=classes, field="unlabelled_split")


def _choose_unlabelled(
    pool: Examples, validation: Examples, test: Examples, manifest: ManifestLabels | None
) -> Examples:
    seen = len(pool) - len(pool.without(test))
    if seen:
        raise BadInput(
            f"unlabelled_split: {seen} of its {len(pool)} images are those of {test.table} that the accuracy is "
            "measured on; name another split for one of them"
        )
    pool = pool.without(validation)
    return pool if manifest is None else manifest.choose(pool)


def _read_test(
    store: Store, parameters: TrainParameters, version: Version, classes: ClassList, inputs: dict[str, int]
) -> Examples:
    split = choose_test_split(parameters, version)
    own = parameters.eval_dataset in (None, parameters.dataset)
    table = store.table(f"{parameters.eval_dataset or parameters.dataset}.images")
    chosen = version if own else table.version()
    inputs[table.name] = chosen.number
    found = read_examples(table, chosen, split=split, image_root=None, classes=classes, field="eval_split")
    if not (found.classes != NO_CLASS).any() and not any(found.several.values()):
        raise BadInput(f"eval_dataset: no image of {table.name} has a class of the student's")
    return found


def device_kind(device: str) -> str:
    """Return cuda or cpu, whichever a run takes for the parameter `device` on this machine."""
    return "cuda" if parse_device(device)[0] != "cpu" and torch.cuda.is_available() else "cpu"


def _with_run(plan: TrainingPlan) -> TrainingPlan:
    given = plan.parameters
    facts = [
        REVISION,
        given.model_dump(mode="json", exclude=_NOT_OF_THE_WEIGHTS),
        plan.student.weights_digest,
        plan.student.library,
        plan.classes.digest(),
        plan.weak_views().policy.digest(),
        plan.strong_views().policy.digest(),
        [None if one is None else one.digest() for one in (plan.labelled, plan.validation, plan.unlabelled)],
        None if plan.maps is None else plan.maps.version.sha256,
        None if plan.manifest is None else plan.manifest.digest,
        numerics(),
        device_kind(given.device),
    ]
    values = {name: getattr(plan, name) for name in TrainingPlan.__dataclass_fields__}
    return TrainingPlan(**(values | {"run": digest_json(facts)}))
