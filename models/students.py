"""Students: classifiers to be trained, from nothing or from weights, and the rates of their parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from labelmill.models.architectures import Architecture, build_on_meta, find_architecture
from labelmill.models.load_classifier import LoadedClassifier, load_classifier
from labelmill.models.preprocessing import Preprocessing
from labelmill.models.trained_weights import TrainedFacts
from labelmill.models.weights import PRETRAINED
from labelmill.models.weights_match import FREE_ROWS, digest_weights
from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput

NO_WEIGHTS = "none"

_NO_DECAY_NDIM = 1
"""Biases and the scales of norms have one axis or none: drawing them to zero does not simplify what is learnt."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Student:
    """A classifier to be trained: logits (B, C) float32 of normalised images (B, 3, H, W) float32; in train mode.

    `head` names the parameters of its last layer, those that depend on the number of classes. `weights_source` is
    "none", "pretrained …" or the file, with "and its head" where the head was kept; `weights_digest` is that of all
    tensors that were loaded, None where there were none.
    """

    name: str
    library: str  # with its version
    model: nn.Module
    head: frozenset[str]
    preprocessing: Preprocessing
    weights_source: str
    weights_digest: str | None


def build_student(
    name: str,
    *,
    num_classes: int,
    weights: str = NO_WEIGHTS,
    input_size: int | None = None,
    classes: ClassList | None = None,
) -> Student:
    """Build a student with `num_classes` outputs; random weights are drawn from torch's generator, which you seed.

    `name` is a model of timm, `torchvision/NAME`, wrn_28_2, resnet18_32 or conv4. `weights` is none, or all that
    `load_teacher` takes: then the body is the weights', and the head is new, whatever its class count. Only a file
    that was trained here on just the given `classes` keeps its head. `input_size` in pixels, of both sides, replaces
    the size that the weights, or else the architecture, were published or trained for.

    Raises BadInput for a name, class count, file or size that is not what was expected, WorkFailed when pretrained
    weights cannot be downloaded.
    """
    _check_count(num_classes, classes)
    architecture = find_architecture(name, role="student")
    model = architecture.build(num_classes).float()  # first: its head is the same from any weights
    head = _find_head(architecture)
    source, digest, preprocessing = NO_WEIGHTS, None, architecture.preprocessing
    if weights != NO_WEIGHTS:
        loaded = load_classifier(architecture, weights, role="student")
        kept = _has_classes(loaded, classes)
        _copy_weights(model, loaded.model, leave_out=frozenset() if kept else head)
        source = f"{PRETRAINED} {loaded.tag}" if weights == PRETRAINED else _describe(loaded, head_kept=kept)
        digest, preprocessing = digest_weights(loaded.model), loaded.preprocessing
    if input_size is not None:
        _try_size(model, name, input_size, preprocessing)
        preprocessing = replace(preprocessing, native_size=(input_size, input_size))
    return Student(
        name=name, library=architecture.library, model=model.train(), head=head, preprocessing=preprocessing,
        weights_source=source, weights_digest=digest,
    )  # fmt: skip


def _check_count(num_classes: int, classes: ClassList | None) -> None:
    if num_classes < 2:
        raise BadInput(f"num_classes: expected at least 2 for a student to tell apart, got {num_classes}")
    if classes is not None and len(classes) != num_classes:
        raise BadInput(f"classes: expected {num_classes}, one for each output of the student, got {len(classes)}")


def _has_classes(loaded: LoadedClassifier, classes: ClassList | None) -> bool:
    """Tell whether a file says that it was trained on just these classes, wherever its list came from."""
    listed = loaded.facts.classes if loaded.facts else None
    return listed is not None and classes is not None and listed.classes == classes.classes


def _find_head(architecture: Architecture) -> frozenset[str]:
    model = build_on_meta(architecture, FREE_ROWS, ())
    head = frozenset(key for key, value in model.named_parameters() if value.shape[:1] == (FREE_ROWS,))
    if not head:
        raise BadInput(
            f"student {architecture.name!r}: expected a classifier whose last layer has a row for each class, "
            "it has none"
        )
    return head


def _copy_weights(model: nn.Module, loaded: nn.Module, *, leave_out: frozenset[str]) -> None:
    """Copy all that both have; classifiers beside the way, which some weights bring, are left behind."""
    state, given = model.state_dict(), loaded.state_dict()
    state.update({key: given[key] for key in state if key not in leave_out})
    model.load_state_dict(state, strict=True)


def _describe(loaded: LoadedClassifier, *, head_kept: bool) -> str:
    return f"{loaded.source} and its head" if head_kept else loaded.source


@torch.no_grad()
def _try_size(model: nn.Module, name: str, size: int, own: Preprocessing) -> None:
    native = "x".join(map(str, own.native_size))
    if size < 1:
        raise BadInput(f"input_size: expected pixels, such as {own.native_size[0]}, got {size}")
    try:
        model.eval()(torch.zeros((1, 3, size, size)))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadInput(
            f"input_size {size}: student {name!r} does not take it ({error}); its own is {native}"
        ) from error


def group_parameters(student: Student, *, rate: float, body_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return an optimizer's groups: the head learns at `rate`, the body at rate * body_rate.

    Each trainable parameter is in exactly one group; those of one axis, biases and norms, have no weight decay.
    Raises BadInput for a number that is negative or not finite.
    """
    for field, value in (("rate", rate), ("body_rate", body_rate), ("weight_decay", weight_decay)):
        if not (math.isfinite(value) and value >= 0):
            raise BadInput(f"{field}: expected a number of at least 0, got {value}")
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in student.model.named_parameters():
        if parameter.requires_grad:
            kind = (name in student.head, parameter.ndim > _NO_DECAY_NDIM)
            groups.setdefault(kind, []).append(parameter)
    return [
        {"params": found, "lr": rate if is_head else rate * body_rate, "weight_decay": weight_decay if decays else 0.0}
        for (is_head, decays), found in groups.items()
    ]


def describe_student(student: Student, classes: ClassList | None) -> TrainedFacts:
    """Return what the file of a trained student says of it; raise BadInput unless there is a class for each output."""
    outputs = student.model.get_parameter(min(student.head)).shape[0]
    if classes is not None and len(classes) != outputs:
        raise BadInput(f"classes: expected {outputs}, one for each output of the student, got {len(classes)}")
    facts = student.preprocessing.facts()
    return TrainedFacts(
        architecture=student.name,
        library=student.library,
        input_size=facts["native_size"],
        mean=facts["mean"],
        std=facts["std"],
        interpolation=facts["interpolation"],
        classes=classes,
    )
