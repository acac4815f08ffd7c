"""Matching a dataset's classes to a teacher's: by what they mean, never by their index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from labelmill.schemas.classes import ClassList

_Key = TypeVar("_Key", bound=Hashable)

SHOWN_CLASSES = 3
"""Classes of each list that a reason quotes; enough to see what kind of list it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassMatch:
    """For each class of a dataset the teacher's class that means the same, or None.

    `ambiguous` counts the dataset's classes whose wnid or name fits several classes; they stay unmatched. `reason`
    says why nothing could be matched, and is None when something was.
    """

    teacher_ids: tuple[int | None, ...]
    how: Literal["wnid", "name", "none"]
    reason: str | None
    matched: int
    ambiguous: int

    @property
    def unmatched(self) -> int:
        """Count the dataset's classes without a class of the teacher, the ambiguous ones among them."""
        return len(self.teacher_ids) - self.matched

    def facts(self) -> dict[str, Any]:
        """Return how the match went, for a version's metadata, as JSON takes it."""
        return {name: getattr(self, name) for name in ("how", "matched", "unmatched", "ambiguous", "reason")}


def match_classes(dataset: ClassList | None, teacher: ClassList | None) -> ClassMatch:
    """Match by wnid when most classes of both lists have one, otherwise by name; equal lists class by class.

    Names are equal when they agree but for case, '_' for a space and outer space. Commas separate synonyms, any of
    which may agree; a list of synonyms that agrees as a whole goes before one that shares a word. A wnid or name
    that fits several classes of the teacher, or that the dataset has twice, is left unmatched and counted.
    """
    if not dataset:
        return _unmatched(0, "the dataset has no class list")
    if not teacher:
        return _unmatched(len(dataset), "the teacher's class list is not known")
    if dataset.classes == teacher.classes and len(set(dataset.classes)) == len(dataset):
        # a teacher trained on this dataset: folders 'cat' and 'Cat' differ there, and a comma is part of a name
        how: Literal["wnid", "name"] = "wnid" if _mostly_wnids(dataset) else "name"
        return _judge([{place} for place in range(len(dataset))], [False] * len(dataset), how, dataset, teacher)
    if _mostly_wnids(dataset) and _mostly_wnids(teacher):
        found, twice = _find_by_wnid(dataset, teacher)
        return _judge(found, twice, "wnid", dataset, teacher)
    found, twice = _find_by_name(dataset, teacher)
    return _judge(found, twice, "name", dataset, teacher)


def _unmatched(count: int, reason: str, ambiguous: int = 0) -> ClassMatch:
    return ClassMatch(teacher_ids=(None,) * count, how="none", reason=reason, matched=0, ambiguous=ambiguous)


def _mostly_wnids(classes: ClassList) -> bool:
    return 2 * sum(c.wnid is not None for c in classes.classes) > len(classes)


def _find_by_wnid(dataset: ClassList, teacher: ClassList) -> tuple[list[set[int]], list[bool]]:
    places = _places([c.wnid] if c.wnid else [] for c in teacher.classes)
    wnids = [c.wnid for c in dataset.classes]
    counts = Counter(wnids)
    return [places.get(wnid, set()) if wnid else set() for wnid in wnids], [counts[wnid] > 1 for wnid in wnids]


def _find_by_name(dataset: ClassList, teacher: ClassList) -> tuple[list[set[int]], list[bool]]:
    wholes = _places([tuple(_synonyms(c.name))] for c in teacher.classes)
    words = _places(_synonyms(c.name) for c in teacher.classes)
    names = [tuple(_synonyms(c.name)) for c in dataset.classes]
    counts = Counter(names)
    found = []
    for name in names:
        shared = set[int]().union(*(words.get(word, set()) for word in name))
        # one word that is a whole name can still mean another class: ImageNet's 'maillot' and 'maillot, tank suit'
        found.append((wholes.get(name) if len(name) > 1 else None) or shared)
    return found, [counts[name] > 1 for name in names]


def _places(keys_of_classes: Iterable[Sequence[_Key]]) -> dict[_Key, set[int]]:
    places: dict[_Key, set[int]] = {}
    for index, keys in enumerate(keys_of_classes):
        for key in keys:
            places.setdefault(key, set()).add(index)
    return places


def _synonyms(name: str) -> list[str]:
    words = (" ".join(word.replace("_", " ").split()).casefold() for word in name.split(","))
    return [word for word in words if word]


def _judge(
    found: Sequence[set[int]],
    twice: Sequence[bool],
    how: Literal["wnid", "name"],
    dataset: ClassList,
    teacher: ClassList,
) -> ClassMatch:
    unclear = [bool(ids) and (len(ids) > 1 or again) for ids, again in zip(found, twice, strict=True)]
    ids = tuple(
        next(iter(places)) if places and not doubt else None for places, doubt in zip(found, unclear, strict=True)
    )
    matched = sum(i is not None for i in ids)
    if matched:
        return ClassMatch(teacher_ids=ids, how=how, reason=None, matched=matched, ambiguous=sum(unclear))
    reason = f"no {how} of the dataset's {_show(dataset, how)} is among the teacher's {_show(teacher, how)}"
    if any(unclear):
        reason += f"; {sum(unclear)} fit more than one class"
    return _unmatched(len(dataset), reason, sum(unclear))


def _show(classes: ClassList, how: Literal["wnid", "name"]) -> str:
    shown = [(c.wnid if how == "wnid" else None) or c.name for c in classes.classes[:SHOWN_CLASSES]]
    more = ", …" if len(classes) > SHOWN_CLASSES else ""
    return f"{len(classes)} classes ({'; '.join(shown)}{more})"
