"""Fitting the tensors of a file to a model, by name or by order, and the digest of the result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from labelmill.models.weights import Weights
from labelmill.schemas.errors import BadInput

FREE_ROWS = 1009
"""Class count of the model that a file is held against; a prime that no layer of a model has as its width."""

SHOWN_KEYS = 4
"""Keys that an error lists of each kind; enough to see another architecture."""

_CLASSIFIERS = ("classifier", "head", "fc", "logits", "last_linear", "_fc", "heads", "output", "linear")

Matched = Literal["by name", "by order"]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsMatch:
    """Which key of a file belongs to which key of the model, and how many classes the file has."""

    file_keys: dict[str, str]  # the model's key to the file's
    how: Matched
    num_classes: int


def match_weights(weights: Weights, model: nn.Module) -> WeightsMatch:
    """Fit a file's tensors to a model that was built with FREE_ROWS classes (on any device, meta included).

    By name where all names agree. Otherwise by order: the tensors are grouped by module, and the modules' order
    (as in the file, or sorted by name with numbers as numbers, or so with the classifier last) must give the
    model's sequence of names within the module and shapes, in all. Whole-number buffers are left to the model.

    Raises BadInput with the first keys that are missing, left over or of another shape.
    """
    file, wanted = _float_shapes(weights.tensors), _float_shapes(model.state_dict())
    rows = _match_names(file, wanted)
    if rows is not None:
        return WeightsMatch(file_keys={key: key for key in wanted}, how="by name", num_classes=rows)
    fits = [fit for order in _file_orders(file) if (fit := _match_order(file, order, wanted)) is not None]
    if not fits:
        raise BadInput(_mismatch_text(weights.source, file, wanted))
    if any(fit != fits[0] for fit in fits) and _is_alphabetical(file):
        raise BadInput(
            f"weights {weights.source!r}: the names are not the model's, and more than one order of them fits; "
            "expected a file with the model's own names"
        )
    keys, rows = fits[0]
    return WeightsMatch(file_keys=keys, how="by order", num_classes=rows)


def load_matched(model: nn.Module, weights: Weights, match: WeightsMatch) -> None:
    """Copy a file's tensors into a model that was built with the match's class count."""
    state = model.state_dict()  # with the modules' versions, which some refuse to load without
    state.update({key: weights.tensors[file_key] for key, file_key in match.file_keys.items()})
    model.load_state_dict(state, strict=True)


def digest_weights(model: nn.Module) -> str:
    """Return the hex sha256 of a model's tensors: name, dtype, shape and bytes, by name, step counters left out."""
    sha = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            continue
        array = value.detach().cpu().contiguous().numpy()
        sha.update(f"{key}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha.update(array.reshape(-1).view("uint8").data)
    return sha.hexdigest()


def _float_shapes(tensors: Mapping[str, torch.Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in tensors.items() if value.is_floating_point()}


def _match_names(file: Shapes, wanted: Shapes) -> int | None:
    if file.keys() != wanted.keys():
        return None
    return _fit_shapes((file[key], wanted[key]) for key in wanted)


def _fit_shapes(pairs: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> int | None:
    """Return the class count when all shapes agree but for the model's rows of classes; None otherwise."""
    pairs = list(pairs)
    if not all(_fits(came, expected) for came, expected in pairs):
        return None
    rows = {came[0] for came, expected in pairs if expected[:1] == (FREE_ROWS,)}
    return rows.pop() if len(rows) == 1 else None


def _fits(came: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if expected[:1] == (FREE_ROWS,):
        return len(came) == len(expected) and came[1:] == expected[1:]
    return came == expected


def _modules(keys: Iterable[str]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for key in keys:
        modules.setdefault(key.rpartition(".")[0], []).append(key)
    return {prefix: sorted(members) for prefix, members in modules.items()}


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)|\.", name) if part]


def _file_orders(file: Shapes) -> list[list[str]]:
    modules = list(_modules(file))
    natural = sorted(modules, key=_natural)
    last = sorted(natural, key=lambda prefix: prefix.split(".")[0] in _CLASSIFIERS)
    # the order of a file that was sorted as text says nothing: block 10 stands before block 2
    return [natural, last] if _is_alphabetical(file) else [modules, natural, last]


def _is_alphabetical(file: Shapes) -> bool:
    return list(file) == sorted(file)


def _match_order(file: Shapes, order: Sequence[str], wanted: Shapes) -> tuple[dict[str, str], int] | None:
    file_modules, model_modules = _modules(file), _modules(wanted)
    file_keys = [key for prefix in order for key in file_modules[prefix]]
    model_keys = [key for members in model_modules.values() for key in members]
    if len(file_keys) != len(model_keys):
        return None
    pairs = list(zip(model_keys, file_keys, strict=True))
    if any(m.rpartition(".")[2] != f.rpartition(".")[2] for m, f in pairs):
        return None
    rows = _fit_shapes((file[f], wanted[m]) for m, f in pairs)
    return None if rows is None else (dict(pairs), rows)


def _mismatch_text(source: str, file: Shapes, wanted: Shapes) -> str:
    missing = [_entry(key, wanted[key]) for key in wanted if key not in file]
    left = [_entry(key, file[key]) for key in file if key not in wanted]
    other = [
        f"{key} {_sizes(file[key])} in place of {_sizes(wanted[key])}"
        for key in wanted
        if key in file and not _fits(file[key], wanted[key])
    ]
    parts = [
        f"{what} {len(keys)}: {', '.join(keys[:SHOWN_KEYS])}{', …' if len(keys) > SHOWN_KEYS else ''}"
        for what, keys in (("missing", missing), ("unexpected", left), ("of another shape", other))
        if keys
    ]
    return (
        f"weights {source!r}: expected the {len(wanted)} tensors of the architecture, got {len(file)} that "
        f"fit neither by name nor by order; " + "; ".join(parts or ["its classifier's weight and bias disagree"])
    )


def _entry(key: str, shape: tuple[int, ...]) -> str:
    return f"{key} {_sizes(shape)}"


def _sizes(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join("classes" if size == FREE_ROWS else str(size) for size in shape) + ")"
