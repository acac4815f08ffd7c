"""Make a class list of the categories of a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.tasks.ingest.labels import class_key


def name_categories(named: Sequence[tuple[int | str, str]]) -> dict[int | str, str]:
    """Return each category's class name in the order of class ids: numbers ascending, then texts.

    `named` are ids with names. A name that several categories share gets its id behind it; of entries with one id the
    first counts.
    """
    first: dict[int | str, str] = {}
    for key, name in named:
        first.setdefault(key, name)
    ordered = sorted(first, key=lambda key: (isinstance(key, str), key if isinstance(key, int) else 0, str(key)))
    shared = {name for name, count in Counter(first.values()).items() if count > 1}
    names = {key: f"{first[key]} (id {key})" if first[key] in shared else first[key] for key in ordered}
    if len(set(names.values())) < len(names):  # a name that looks like one of those just made
        return {key: f"{first[key]} (id {key!r})" for key in ordered}
    return names


def make_class_list(names: Mapping[int | str, str], *, source: str) -> ClassList:
    """Return the class list of named categories."""
    return ClassList(classes=tuple(ClassName(name=name) for name in names.values()), source=source)


def find_class_ids(names: Mapping[int | str, str], classes: ClassList | None) -> dict[int | str, int]:
    """Return each category's id in a dataset's class list; those that are not in it are left out."""
    ids = {class_key(name): number for number, name in enumerate(classes.classes if classes else ())}
    return {key: ids[name] for key, name in names.items() if name in ids}
