"""The labels that a source gives its files, before they become ids of a dataset's class list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labelmill.schemas.classes import ClassList, ClassName


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLabels:
    """The class list that a source proposes, and for each listed file, in order, the key of its class or None.

    Where labels are `required`, a file without one is rejected as `no_label`. `several` holds, by path, the keys of all
    classes of a file where the source gives more than one label an image; an empty one says that it has none of them.
    `without_label` is the detail of that rejection.
    """

    classes: ClassList
    keys: Sequence[str | None]
    required: bool
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without_label: str = "expected a path below a wnid folder, or a name in the ground truth"


def class_key(name: ClassName) -> str:
    """Return what identifies a class in any list: its wnid, else its name."""
    return name.wnid or name.name


def find_several_ids(several: Mapping[str, Sequence[str]], classes: ClassList) -> dict[str, tuple[int, ...]]:
    """Return the class ids of each path in `several`, ascending."""
    ids = {class_key(name): number for number, name in enumerate(classes.classes)}
    return {path: tuple(sorted({ids[key] for key in keys})) for path, keys in several.items()}


def find_label_ids(keys: Sequence[str | None], classes: ClassList) -> list[int | None]:
    """Return each file's class id in `classes`; KeyError for a key that is not in it (see settle_classes)."""
    ids = {class_key(name): number for number, name in enumerate(classes.classes)}
    return [None if key is None else ids[key] for key in keys]
