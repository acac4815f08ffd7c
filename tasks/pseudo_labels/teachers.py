"""The teachers of a run, which must mean the same by a class id."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.models.teacher import Teacher, load_teacher
from labelmill.schemas.errors import BadInput, UnsupportedTeacher
from labelmill.schemas.parameters import PseudolabelParameters, parse_further_teachers

CLASSES_MIN = 2
"""There is no margin between fewer."""


def load_teachers(parameters: PseudolabelParameters) -> tuple[Teacher, ...]:
    """Load all teachers of a run, the first one first.

    Raises BadInput or UnsupportedTeacher for one that cannot be loaded, has a single class, or has other classes than
    the first; the field `also` is named for those that it lists.
    """
    teachers = [load_teacher(parameters.teacher, weights=parameters.weights, classes=parameters.classes)]
    if teachers[0].num_classes < CLASSES_MIN:
        raise BadInput(f"teacher: {teachers[0].name}: expected {CLASSES_MIN} classes or more, got one")
    for name, weights in parse_further_teachers(parameters.also):
        try:
            teachers.append(load_teacher(name, weights=weights, classes=parameters.classes))
        except (BadInput, UnsupportedTeacher) as error:
            raise type(error)(f"also: {name}: {error}") from error
    refuse_other_classes(teachers)
    return tuple(teachers)


def refuse_other_classes(teachers: Sequence[Teacher]) -> None:
    """Raise BadInput when a teacher's classes are not those of the first; unknown ones must be as many."""
    first = teachers[0]
    for teacher in teachers[1:]:
        if teacher.num_classes != first.num_classes:
            raise BadInput(
                f"also: {teacher.name}: expected the {first.num_classes} classes of {first.name}, got "
                f"{teacher.num_classes}"
            )
        if _digest(teacher) != _digest(first):
            raise BadInput(
                f"also: {teacher.name}: expected the classes of {first.name} ({_source(first)}) in their order, got "
                f"others ({_source(teacher)})"
            )


def _digest(teacher: Teacher) -> str | None:
    return teacher.classes.digest() if teacher.classes else None


def _source(teacher: Teacher) -> str:
    return teacher.classes.source if teacher.classes else "not known"
