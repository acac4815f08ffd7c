"""Look at some map files before all are read: their shape, and whether they hold logits at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from labelmill.models.label_map_tensor import BadMap, look_like_probabilities, shape_of
from labelmill.schemas.errors import BadInput
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.label_map_files.load_file import load_listed_file

PROBED_FILES = 16
"""Enough for one odd file not to decide about the others."""

TRIED_FILES = 256
"""When the first of so many files are all damaged, the folder is the wrong one."""


def probe_files(
    root: Path, candidates: Sequence[ListedFile], *, transposed: bool, scores_are_logits: bool
) -> tuple[int, int, int]:
    """Return the commonest (k, H, W) of the first files that load.

    Raises BadInput when none does, or when all hold what looks like probabilities.
    """
    tensors = _load_some(root, candidates)
    if not scores_are_logits and all(_holds_probabilities(tensor) for tensor in tensors):
        raise BadInput(
            f"source: the scores of all {len(tensors)} files looked at are in 0…1 and sum to at most 1 in each cell, "
            "so they are probabilities; label maps hold logits, and the softmax of probabilities is nearly uniform. "
            "If they are logits all the same, say so with scores_are_logits"
        )
    shapes = Counter(shape_of(tensor, transposed=transposed) for tensor in tensors)
    return shapes.most_common(1)[0][0]


def _load_some(root: Path, candidates: Sequence[ListedFile]) -> list[Tensor]:
    tensors: list[Tensor] = []
    faults: list[str] = []
    for listed in candidates[:TRIED_FILES]:
        try:
            tensors.append(load_listed_file(root, listed))
        except BadMap as bad:
            faults.append(f"{listed.path}: {bad}")
        if len(tensors) == PROBED_FILES:
            break
    if not tensors:
        raise BadInput(f"source: none of the first {len(faults)} map files can be used; {faults[0]}")
    return tensors


def _holds_probabilities(tensor: Tensor) -> bool:
    scores = tensor[0].permute(1, 2, 0).numpy()
    return bool(np.isfinite(scores).all()) and look_like_probabilities(scores)
