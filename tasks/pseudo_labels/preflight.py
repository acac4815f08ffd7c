"""Checks of a pseudolabel run's parameters, before any work."""

from __future__ import annotations

import os

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import PseudolabelParameters, parse_further_teachers
from labelmill.tasks.shards import find_roots
from labelmill.tasks.store import Table, open_store

_NO_FILE = ("pretrained", "package:")
_NO_LIST = ("auto", "imagenet-1k", "none")


def check_pseudolabel(parameters: PseudolabelParameters) -> None:
    """Raise BadInput or NotInStore when images, split, weights or class list are not there, or the table is another."""
    store = open_store(parameters.store)
    version = store.table(f"{parameters.dataset}.images").version(parameters.images_version)
    find_roots(version, split=parameters.split, image_root=parameters.image_root)
    refuse_other_table(store.table(f"{parameters.dataset}.{parameters.table}"))
    _check_weights("weights", parameters.weights)
    for name, weights in parse_further_teachers(parameters.also):
        _check_weights(f"also: {name}", weights)
    if parameters.classes not in _NO_LIST and not os.path.isfile(os.path.expanduser(parameters.classes)):
        raise BadInput(f"classes: no such file: {parameters.classes}; expected {', '.join(_NO_LIST)} or a text file")


def refuse_other_table(table: Table) -> None:
    """Raise BadInput when the table cannot have its name, or is there and holds something else."""
    table.check_name()
    latest = table.latest()
    if latest is not None and latest.metadata.get("kind") != "pseudo_labels":
        raise BadInput(f"table: {table.name} is there and holds something else; choose another name")


def _check_weights(field: str, weights: str) -> None:
    if not weights.startswith(_NO_FILE) and not os.path.isfile(weights):
        raise BadInput(f"{field}: no such file: {weights}; or give package:NAME or pretrained")
