"""Checks of the parameters of training, before any work."""

from __future__ import annotations

import os

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import TrainParameters
from labelmill.tasks.augmentation.read_policy import read_policy
from labelmill.tasks.store import open_store

_NO_FILE = ("none", "pretrained", "package:")


def check_train(parameters: TrainParameters) -> None:
    """Raise BadInput or NotInStore when tables, weights or policies are not there."""
    store = open_store(parameters.store)
    version = store.table(f"{parameters.dataset}.images").version(parameters.images_version)
    known = sorted(version.metadata["roots"])
    if parameters.split is not None and parameters.split not in known:
        raise BadInput(f"split: expected one of {', '.join(known)}, got {parameters.split!r}")
    for other in {parameters.eval_dataset, parameters.unlabelled_dataset} - {None}:
        store.table(f"{other}.images").version()
    if parameters.objective == "relabel":
        name = parameters.label_maps or f"{parameters.dataset}.label_maps"
        store.table(name).version(parameters.label_maps_version)
    if parameters.objective == "pseudo":
        name = parameters.manifest or f"{parameters.unlabelled_dataset or parameters.dataset}.manifest"
        store.table(name).version(parameters.manifest_version)
    weights = parameters.student_weights
    if not weights.startswith(_NO_FILE) and not os.path.isfile(weights):
        raise BadInput(f"student_weights: no such file: {weights}; or give none, package:NAME or pretrained")
    for policy in {parameters.weak_policy, parameters.strong_policy} - {"auto"}:
        read_policy(policy)
