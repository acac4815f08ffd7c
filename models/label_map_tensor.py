"""Between a stored label map and the tensor of ReLabel's authors: float32 [2, k, H, W], scores and class ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelmill.models.label_encoding import STEPS_MAX, EncodedMap, TopCells, encode_maps, gather_maps
from labelmill.schemas.errors import LabelmillError
from labelmill.schemas.images import Reason
from labelmill.schemas.label_maps import MapReason

DIMENSIONS = 4

VALUES_MAX = 2**22
"""No map has more values; a tensor of a few bytes can claim any shape by repeating itself."""

PROBABILITY_SLACK = 1e-3
"""Softmax in half precision may sum to a little more than 1."""

Floats = npt.NDArray[np.floating[Any]]


class BadMap(ValueError, LabelmillError):
    """A file or tensor that is no usable label map: `reason` for machines, `detail` for people."""

    def __init__(self, reason: Reason | MapReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorMeaning:
    """What the numbers of the tensors of one source mean.

    shape: (k, H, W) of our maps, rows first. transposed: the tensors are [2, k, W, H]. scores_are_logits: do not
    refuse scores that look like probabilities. step: unit of the stored logits.
    """

    shape: tuple[int, int, int]
    num_classes: int
    transposed: bool
    scores_are_logits: bool
    step: float


def check_tensor(content: object) -> Tensor:
    """Return `content` when it is a dense float32 tensor [2, k, A, B] without empty axes; raise BadMap otherwise."""
    if not isinstance(content, Tensor):
        raise BadMap(MapReason.NOT_A_LABEL_MAP, f"expected a tensor, got {type(content).__name__}")
    shape = list(content.shape)
    if content.dtype is not torch.float32 or content.layout is not torch.strided or content.is_meta:
        # half precision has rounded class ids above 2048 already, and nothing in the file would tell
        raise BadMap(MapReason.NOT_A_LABEL_MAP, f"expected dense float32, got {content.dtype} {content.layout}")
    if len(shape) != DIMENSIONS or shape[0] != 2 or not 0 < content.numel() <= VALUES_MAX:
        raise BadMap(MapReason.WRONG_SHAPE, f"expected [2, k, H, W] of scores and class ids, got {shape}")
    return content.detach()


def shape_of(tensor: Tensor, *, transposed: bool) -> tuple[int, int, int]:
    """Return (k, H, W) of the map in a tensor [2, k, H, W], or [2, k, W, H] when it is transposed."""
    _, top_k, first, second = tensor.shape
    return (top_k, second, first) if transposed else (top_k, first, second)


def encode_tensor(tensor: Tensor, meaning: TensorMeaning) -> EncodedMap:
    """Encode a checked tensor; its scores may stand in any order of rank.

    The logits are stored as they are: what lies outside the top-k is not in the tensor, so nothing can be centred,
    `absent` is 0 and `rest` empty. Raises BadMap for what is no map of logits of this meaning.
    """
    found = shape_of(tensor, transposed=meaning.transposed)
    if found != meaning.shape:
        raise BadMap(MapReason.WRONG_SHAPE, f"expected (k, H, W) {meaning.shape} as in most files, got {found}")
    ranks_last = tensor.permute(0, 3, 2, 1) if meaning.transposed else tensor.permute(0, 2, 3, 1)
    scores, ids = (values.numpy() for values in ranks_last)  # (H, W, k) float32 each
    _check_scores(scores, meaning)
    whole = _check_ids(ids, meaning.num_classes)
    order = np.argsort(-scores, axis=-1, kind="stable")
    return _encode(
        np.take_along_axis(whole, order, -1), np.take_along_axis(scores, order, -1).astype(np.float64), meaning.step
    )


def look_like_probabilities(scores: Floats) -> bool:
    """Tell whether scores (H, W, k) are all in 0…1 and sum to no more than 1 in each cell."""
    within = bool((scores >= 0).all() and (scores <= 1).all())
    return within and bool((scores.sum(-1) <= 1 + PROBABILITY_SLACK).all())


def _check_scores(scores: Floats, meaning: TensorMeaning) -> None:
    if not bool(np.isfinite(scores).all()):
        raise BadMap(Reason.NOT_FINITE, "a score is not finite")
    if not meaning.scores_are_logits and look_like_probabilities(scores):
        raise BadMap(
            MapReason.PROBABILITIES,
            "all scores are in 0…1 and sum to at most 1 in each cell; the softmax of probabilities is nearly uniform. "
            "If they are logits all the same, say so with scores_are_logits",
        )


def _check_ids(ids: Floats, num_classes: int) -> npt.NDArray[np.int64]:
    if not bool(np.isfinite(ids).all()):
        raise BadMap(Reason.NOT_FINITE, "a class id is not finite")
    if bool((ids != np.rint(ids)).any()):
        odd = ids[ids != np.rint(ids)].flat[0]
        raise BadMap(MapReason.ID_NOT_WHOLE, f"expected whole class ids at index 1, got {odd:g}")
    if ids.min() < 0 or ids.max() >= num_classes:
        odd = ids.min() if ids.min() < 0 else ids.max()
        raise BadMap(MapReason.ID_OUT_OF_RANGE, f"expected class ids 0 to {num_classes - 1}, got {odd:.0f}")
    whole = ids.astype(np.int64)
    ordered = np.sort(whole, axis=-1)
    if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
        raise BadMap(MapReason.ID_REPEATED, "a cell lists a class id twice")
    return whole


def _encode(ids: npt.NDArray[np.int64], logits: npt.NDArray[np.float64], step: float) -> EncodedMap:
    inside = np.bincount(ids.ravel(), weights=logits.ravel())  # as if every class were 0 outside: `absent` becomes 0
    top = TopCells(
        ids=torch.from_numpy(ids)[None],
        logits=torch.from_numpy(logits)[None],
        log_sum_exp=torch.from_numpy(logits[..., 0])[None],
        class_sums=torch.from_numpy(inside)[None],
    )
    (encoded,) = encode_maps(top, step=step)
    if encoded is None:
        largest = np.abs(logits).max()
        raise BadMap(MapReason.SCORE_OUT_OF_RANGE, f"expected logits within ±{STEPS_MAX * step:g}, got {largest:g}")
    return replace(encoded, rest=np.empty(0, np.int32))


def tensors_of(
    maps: Sequence[EncodedMap],
    *,
    grid: tuple[int, int],
    top_k: int,
    step: float,
    num_classes: int,
    transposed: bool = False,
) -> list[Tensor]:
    """Return stored maps as the authors' tensors, float32 [2, k, H, W] each, or [2, k, W, H] when transposed."""
    batch = gather_maps(maps, grid=grid, top_k=top_k, step=step, num_classes=num_classes)
    ids = batch.classes.gather(1, batch.index.flatten(1)).view(batch.index.shape)
    both = torch.stack([batch.logits, ids.float()], dim=1)  # (B, 2, H, W, k)
    ranks_first = both.permute(0, 1, 4, 3, 2) if transposed else both.permute(0, 1, 4, 2, 3)
    # a row of the batch would be saved with the whole batch behind it
    return [tensor.clone(memory_format=torch.contiguous_format) for tensor in ranks_first]
