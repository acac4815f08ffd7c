"""Checks of the parameters of views, before any work."""

from __future__ import annotations

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import AugmentParameters
from labelmill.tasks.augmentation.read_policy import read_policy
from labelmill.tasks.shards import find_roots
from labelmill.tasks.store import Table, open_store


def check_augment(parameters: AugmentParameters) -> None:
    """Raise BadInput or NotInStore when the policy, the images, the split or the boxes are not there."""
    read_policy(parameters.policy)
    store = open_store(parameters.store)
    version = store.table(f"{parameters.dataset}.images").version(parameters.images_version)
    find_roots(version, split=parameters.split, image_root=parameters.image_root)
    if parameters.boxes_version is not None:
        if parameters.into is None:
            raise BadInput("boxes_version: boxes are carried into a new dataset alone: name one by --into")
        store.table(f"{parameters.dataset}.boxes").version(parameters.boxes_version)
    if parameters.into is not None:
        refuse_other_dataset(store.table(f"{parameters.into}.images"), parameters)
    refuse_other_table(store.table(f"{parameters.into or parameters.dataset}.{parameters.table}"))


def refuse_other_dataset(made: Table, parameters: AugmentParameters) -> None:
    """Raise BadInput when the new dataset's name is that of one which was not made of the same dataset."""
    latest = made.latest()
    if latest is None:
        return
    of = latest.lineage.parameters.get("dataset") if latest.lineage.flow == "augment" else None
    if of != parameters.dataset:
        raise BadInput(
            f"into: dataset {parameters.into} is there and was not made of {parameters.dataset} by augment; choose "
            "another name"
        )


def refuse_other_table(views: Table) -> None:
    """Raise BadInput when the table for the records is there and holds something else."""
    latest = views.latest()
    if latest is not None and latest.metadata.get("kind") != "views":
        raise BadInput(f"table: {views.name} is there and holds something else; choose another name")
