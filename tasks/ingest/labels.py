"""The labels that a source gives its files, before they become ids of a dataset's class list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelmill.schemas.classes import ClassList, ClassName


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLabels:
    """The class list that a source proposes, and for each listed file, in order, the key of its class or None.

    Where labels are `required`, a file without one is rejected as `no_label`.
    """

    classes: ClassList
    keys: Sequence[str | None]
    required: bool


def class_key(name: ClassName) -> str:
    """Return what identifies a class in any list: its wnid, else its name."""
    return name.wnid or name.name


def find_label_ids(keys: Sequence[str | None], classes: ClassList) -> list[int | None]:
    """Return each file's class id in `classes`; KeyError for a key that is not in it (see settle_classes)."""
    ids = {class_key(name): number for number, name in enumerate(classes.classes)}
    return [None if key is None else ids[key] for key in keys]
