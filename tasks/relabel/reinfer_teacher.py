"""Load the teacher that a label maps version names, with the settings that it records."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from labelmill.models.fast_forward import FastModel, make_fast
from labelmill.models.preprocessing import Preprocessing
from labelmill.models.teacher import Teacher, load_teacher
from labelmill.models.weights import PRETRAINED, find_weights
from labelmill.schemas.errors import BadInput
from labelmill.schemas.label_maps import LabelMapMetadata
from labelmill.schemas.parameters import PIXELS_MAX
from labelmill.schemas.versions import Version
from labelmill.tasks.relabel.settings import RelabelSettings, numerics

BATCH_SIZE = 16
"""For a version that records none: labels do not depend on it beyond float noise."""

_NOT_ABOUT_PIXELS = ("native_size", "fixed_size")
_DIGITS = 12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RecordedTeacher:
    """A teacher as a version records it, ready to relabel.

    `teacher` has the recorded preprocessing, `own` is what it would have today; None where they are the same.
    `float32` says that the stored maps and those to come are both computed in float32. `problems` are what speaks
    against this being the recorded teacher; `notes` what may move numbers a little.
    """

    teacher: Teacher
    model: FastModel
    settings: RelabelSettings
    grid: tuple[int, int]
    own: Preprocessing | None
    float32: bool
    is_other: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def load_recorded_teacher(
    version: Version, metadata: LabelMapMetadata, *, weights: str | None = None
) -> RecordedTeacher:
    """Load the teacher of a version from the weights that it names, or from `weights`, and compare the two.

    Raises BadInput when the version records no teacher that can be loaded and `weights` does not help.
    """
    recorded = metadata.teacher
    loaded = _load(f"{version.table} v{version.number}", version, recorded, weights)
    settings = _recorded_settings(metadata)
    grid = loaded.map_size(*settings.input_size)
    preprocessing = _recorded_preprocessing(recorded, loaded.preprocessing)
    teacher = replace(loaded, preprocessing=preprocessing)
    model = make_fast(teacher.model, precision=settings.precision, input_size=settings.input_size)
    other = recorded.get("weights_digest", loaded.weights_digest) != loaded.weights_digest
    problems = []
    if other:
        problems.append(
            f"another teacher: recorded weights digest {recorded['weights_digest'][:_DIGITS]}…, "
            f"these weights ({loaded.weights_source}) {loaded.weights_digest[:_DIGITS]}…"
        )
    differing = _differing(preprocessing, loaded.preprocessing)
    problems += [f"preprocessing, {name}: recorded {old}, the teacher's own is {new}" for name, old, new in differing]
    precisions = (_stored_precision(recorded), str(model.facts()["precision"]))
    return RecordedTeacher(
        teacher=teacher,
        model=model,
        settings=settings,
        grid=grid,
        own=loaded.preprocessing if differing else None,
        float32=set(precisions) == {"fp32"},
        is_other=other,
        problems=tuple(problems),
        notes=_differing_numerics(recorded, precisions),
    )


def _load(where: str, version: Version, recorded: dict[str, Any], weights: str | None) -> Teacher:
    named = version.lineage.parameters.get("weights") if "weights_digest" in recorded else None
    source, name = weights or named, recorded.get("name")
    if not source or not name:
        raise BadInput(
            f"{where}: reinfer needs a recorded teacher, and this version names none that can be loaded "
            f"(its teacher: {name or 'not named'}); give its weights with --weights"
        )
    if weights is None and source != PRETRAINED:
        try:
            find_weights(source)
        except BadInput as error:
            raise BadInput(f"{where}: {error}; say where these weights are now with --weights") from error
    # Labels do not depend on the names of the classes, and the list's file may be gone.
    return load_teacher(name, weights=source, classes="none")


def _recorded_settings(metadata: LabelMapMetadata) -> RelabelSettings:
    known = {field.name for field in fields(RelabelSettings)}
    recorded = {key: value for key, value in metadata.teacher.items() if key in known}
    return RelabelSettings(
        **{
            "batch_size": BATCH_SIZE,
            "max_pixels": PIXELS_MAX,
            **recorded,
            "input_size": metadata.input_size,
            "top_k": metadata.top_k,
            "logit_step": metadata.logit_step,
            "absent_share": metadata.absent_share,
        }
    )


def _recorded_preprocessing(recorded: dict[str, Any], own: Preprocessing) -> Preprocessing:
    known = {field.name for field in fields(Preprocessing)}
    facts = {k: value for k, value in recorded.get("preprocessing", {}).items() if k in known}
    read: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return replace(own, **read)


def _differing(one: Preprocessing, other: Preprocessing) -> list[tuple[str, object, object]]:
    facts, other_facts = one.facts(), other.facts()
    return [
        (key, value, other_facts[key])
        for key, value in facts.items()
        if value != other_facts[key] and key not in _NOT_ABOUT_PIXELS
    ]


def _stored_precision(recorded: dict[str, Any]) -> str:
    return str(recorded.get("engine", {}).get("precision", "unknown"))


def _differing_numerics(recorded: dict[str, Any], precisions: tuple[str, str]) -> tuple[str, ...]:
    old = {"precision": precisions[0], **recorded.get("numerics", {})}
    new = {"precision": precisions[1], **numerics()}
    return tuple(f"{key} {value}, here {new[key]}" for key, value in old.items() if new.get(key, value) != value)
