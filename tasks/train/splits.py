"""Which splits a run learns from and is measured on."""

from __future__ import annotations

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import TrainParameters
from labelmill.schemas.versions import Version

TRAIN_SPLIT = "train"
TEST_SPLITS = ("test", "val")


def choose_split(split: str | None, version: Version) -> str | None:
    """Return the split to learn from: the named one, train where there is one, or None for all."""
    return TRAIN_SPLIT if split is None and TRAIN_SPLIT in version.metadata["roots"] else split


def choose_test_split(parameters: TrainParameters, version: Version) -> str | None:
    """Return the split to measure on, None for all of another dataset; `version` is that of the images to learn from.

    Raises BadInput when that would be what the student learns from.
    """
    if parameters.eval_dataset not in (None, parameters.dataset):
        return parameters.eval_split
    learnt = choose_split(parameters.split, version)
    found = parameters.eval_split or next((name for name in TEST_SPLITS if name in version.metadata["roots"]), None)
    if found is None or found == learnt or learnt is None:
        raise BadInput(
            "eval_dataset: nothing is left to measure on: name a split to learn from and another one by eval_split, or "
            "another dataset"
        )
    return found


def check_split(field: str, split: str | None, version: Version) -> None:
    """Raise BadInput, naming the field, when a version has no such split."""
    known = sorted(version.metadata["roots"])
    if split is not None and split not in known:
        raise BadInput(f"{field}: expected one of {', '.join(known)}, got {split!r}")
