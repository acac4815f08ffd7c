"""Checks of the parameters of training, before any work."""

from __future__ import annotations

import os

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import TrainParameters
from labelmill.tasks.augmentation.read_policy import read_policy
from labelmill.tasks.store import open_store
from labelmill.tasks.train.splits import check_split, choose_test_split

_NO_FILE = ("none", "pretrained", "package:")


def check_train(parameters: TrainParameters) -> None:
    """Raise BadInput or NotInStore when tables, weights or policies are not there."""
    store = open_store(parameters.store)
    version = store.table(f"{parameters.dataset}.images").version(parameters.images_version)
    check_split("split", parameters.split, version)
    test_split = choose_test_split(parameters, version)
    for field, other, split in (
        ("eval_split", parameters.eval_dataset, test_split),
        ("unlabelled_split", parameters.unlabelled_dataset, parameters.unlabelled_split),
    ):
        own = other in (None, parameters.dataset)
        check_split(field, split, version if own else store.table(f"{other}.images").version())
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
