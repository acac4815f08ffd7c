"""Making a classifier fully convolutional: its head at every place instead of once after pooling.

Source: Yun et al. 2021, Re-labeling ImageNet, section 3.1 (global pooling dropped, the linear layer a 1x1 convolution).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from labelmill.models.classifier_split import SplitClassifier
from labelmill.schemas.errors import UnsupportedTeacher

TOLERANCE = 1e-4
"""Largest difference of two logits that are equal, relative to the largest effect of the features on a logit."""

ROUNDING = 1e-6
"""Difference that float32 may make, relative to the largest logit: matters where the bias hides the features."""

PROBE_SIZE = (96, 128)
"""Height and width in pixels of the image that a classifier is tried on: not square, small, and above every stride."""

_PROBE_SCALES = (1.0, 10.0)  # besides the features' own: a smooth activation looks linear on small numbers
_PROBE_CELLS = (2, 3)
_PROBE_IMAGES = 4

HeadKind = Literal["linear", "per cell"]


class DenseClassifier(nn.Module):
    """A classifier that gives logits (B, C, h, w), one set for each cell, of normalised images (B, 3, H, W).

    `features` gives (B, D, h, w). `projection` is the classifier's last layer as a 1x1 convolution, where the head
    is nothing but pooling and that layer; otherwise None, and `head` runs on each cell as on a pooled 1x1 map.
    `head_kind` is "linear" where the mean of the dense logits is the classifier's own logits.
    """

    def __init__(
        self,
        *,
        features: nn.Module,
        head: nn.Module,
        projection: nn.Conv2d | None,
        head_kind: HeadKind,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.head_kind = head_kind
        self.num_classes = num_classes
        self.features = features
        self.head = head if projection is None else None
        self.projection = projection

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the dense logits (B, C, h, w) of normalised images (B, 3, H, W)."""
        return self.logits_of(self.features(images))

    def logits_of(self, features: torch.Tensor) -> torch.Tensor:
        """Return the dense logits (B, C, h, w) of features (B, D, h, w)."""
        if self.projection is not None:
            logits: torch.Tensor = self.projection(features)
            return logits
        assert self.head is not None  # noqa: S101 - set where there is no projection
        return apply_per_cell(self.head, features)


def apply_per_cell(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Run a pooling head (N, D, 1, 1) -> (N, C) on every cell of (B, D, h, w); return (B, C, h, w)."""
    batch, width, rows, columns = features.shape
    cells = features.permute(0, 2, 3, 1).reshape(batch * rows * columns, width, 1, 1)
    logits: torch.Tensor = head(cells)
    return logits.reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)


@torch.no_grad()
def make_dense(split: SplitClassifier, name: str, probe_size: tuple[int, int] = PROBE_SIZE) -> DenseClassifier:
    """Return the dense form of a split classifier.

    A linear head means that the mean of the dense logits is the classifier's own logits; found by trying the head
    on random features, not by its name. Whatever equals the last layer alone becomes a 1x1 convolution.

    Raises UnsupportedTeacher when the features are no map, when the head tells places apart, or when the two halves
    together are not the classifier.
    """
    width, num_classes, spread = _try_features(split, name, probe_size)
    head_device = next((p.device for p in (split.linear or split.head).parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    shape = (_PROBE_IMAGES, width, *_PROBE_CELLS)
    probes = [scale * torch.randn(shape, generator=generator).to(head_device) for scale in (*_PROBE_SCALES, spread)]
    try:
        _refuse_places(split.head, probes, name)
        linear = all(_same(split.head, f, apply_per_cell(split.head, f).mean((2, 3))) for f in probes)
    except UnsupportedTeacher:
        raise
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UnsupportedTeacher(
            f"teacher {name!r}: its head does not take features of another size, such as a single cell: {error}"
        ) from error
    projection = _projection(split, width) if linear else None
    if projection is not None and not all(_same(split.head, f, projection(f).mean((2, 3))) for f in probes):
        projection = None
    return DenseClassifier(
        features=split.features,
        head=split.head,
        projection=projection,
        head_kind="linear" if linear else "per cell",
        num_classes=num_classes,
    ).eval()


def _try_features(split: SplitClassifier, name: str, size: tuple[int, int]) -> tuple[int, int, float]:
    """Return the features' channels, the number of classes and the features' spread; compare halves with the whole."""
    device = next(split.whole.parameters()).device
    images = torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(0)).to(device)
    try:
        features = split.features(images)
        whole = split.whole(images)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UnsupportedTeacher(
            f"teacher {name!r}: it does not take images of {size[0]}x{size[1]}: {error}"
        ) from error
    if not isinstance(features, torch.Tensor) or features.ndim != 4:
        raise UnsupportedTeacher(
            f"teacher {name!r}: expected a map of features (batch, channels, height, width) before the head, "
            f"got {_describe(features)}"
        )
    if not isinstance(whole, torch.Tensor) or whole.ndim != 2:
        raise UnsupportedTeacher(f"teacher {name!r}: expected logits (batch, classes), got {_describe(whole)}")
    if not whole.is_meta:
        try:
            halves = split.head(features)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UnsupportedTeacher(f"teacher {name!r}: its head does not take its features: {error}") from error
        if halves.shape != whole.shape or (halves - whole).abs().max() > TOLERANCE * whole.abs().max().clamp(min=1):
            raise UnsupportedTeacher(f"teacher {name!r}: its features and its head together are not the classifier")
    return features.shape[1], whole.shape[1], 1.0 if features.is_meta else float(features.std())


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        tokens = ": tokens, not places" if value.ndim == 3 else ""
        return f"a tensor of shape {tuple(value.shape)}{tokens}"
    return f"a {type(value).__name__}"


def _refuse_places(head: nn.Module, probes: list[torch.Tensor], name: str) -> None:
    """Refuse a head that gives something else when the cells change places, such as VGG's 7x7 layer."""
    for features in probes:
        order = torch.tensor([3, 0, 5, 1, 2, 4], device=features.device)
        moved = features.flatten(2)[:, :, order].reshape(features.shape)
        if not _same(head, features, head(moved)):
            raise UnsupportedTeacher(
                f"teacher {name!r}: its head looks at each place differently, so it cannot run on single cells; "
                "expected a head that begins with a global pooling"
            )


def _same(head: nn.Module, features: torch.Tensor, logits: torch.Tensor) -> bool:
    pooled = head(features)
    effect = (pooled - head(torch.zeros_like(features))).abs().max()
    return bool((pooled - logits).abs().max() <= TOLERANCE * effect + ROUNDING * pooled.abs().max())


def _projection(split: SplitClassifier, width: int) -> nn.Conv2d | None:
    layer = split.linear
    if not isinstance(layer, nn.Linear | nn.Conv2d) or layer.weight[0].numel() != width:
        return None
    projection = nn.Conv2d(width, layer.weight.shape[0], 1, bias=layer.bias is not None, device="meta")
    # not a copy: the paper's teacher has 22 MB here
    projection.weight = nn.Parameter(layer.weight.detach().reshape(-1, width, 1, 1), requires_grad=False)
    if layer.bias is not None:
        projection.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return projection.eval()
