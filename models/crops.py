"""A random resized crop that says which part of the image it took: label maps are pooled over that box."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from labelmill.schemas.errors import BadInput


class Crop(NamedTuple):
    """A crop and where it came from; `default_collate` makes of many a `Crop` of batches.

    image: what `then` made of the cropped pixels; box: (4,) float32, x1 y1 x2 y2 in [0, 1] of the image as stored,
    which a flip leaves as it is; flipped: whether the pixels were mirrored left to right.
    """

    image: Any
    box: Tensor
    flipped: bool


class CropWithBox:
    """Crop at random, resize and flip as the usual ImageNet training does, and keep the crop's box.

    Crops are drawn as torchvision's `RandomResizedCrop` draws them, numbers included. A flip does not change a
    label that is pooled to one cell, so `pool` needs the box alone. Takes PIL images and tensors (…, H, W).
    """

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool = True,
        then: Callable[[Any], Any] | None = None,
    ) -> None:
        """Set up; raise BadInput for a parameter that is none.

        size: of the result, (height, width) or one number for both, in pixels; scale: least and largest share of the
        image's area; ratio: least and largest width by height; flip: probability of a flip; then: applied to the
        cropped image. It may change colours, but not move pixels: the box would no longer be theirs.
        """
        self.size = _check_size(size)
        self.scale = _check_range("scale", scale, 1.0)
        self.ratio = _check_range("ratio", ratio, math.inf)
        if not 0 <= flip <= 1:
            raise BadInput(f"flip: expected a probability, got {flip}")
        if then is not None and not callable(then):
            raise BadInput(f"then: expected something to call with the image, got {then!r}")
        self.flip = flip
        self.interpolation = interpolation
        self.antialias = antialias
        self.then = then

    def __call__(self, image: Image.Image | Tensor) -> Crop:
        """Return a random crop of an image."""
        top, left, height, width = v2.RandomResizedCrop.get_params(image, scale=self.scale, ratio=self.ratio)
        full_height, full_width = F.get_size(image)
        pixels = F.resized_crop(
            image, top, left, height, width, size=self.size, interpolation=self.interpolation, antialias=self.antialias
        )
        flipped = bool(torch.rand(()) < self.flip)
        if flipped:
            pixels = F.horizontal_flip(pixels)
        ends = [left / full_width, top / full_height, (left + width) / full_width, (top + height) / full_height]
        return Crop(image=self.then(pixels) if self.then else pixels, box=torch.tensor(ends), flipped=flipped)

    def __repr__(self) -> str:
        return (
            f"CropWithBox({self.size}, scale={self.scale}, ratio={self.ratio}, flip={self.flip}, "
            f"interpolation={self.interpolation}, antialias={self.antialias}, then={self.then})"
        )


def _check_size(size: int | Sequence[int]) -> list[int]:
    both = list(size) if isinstance(size, Sequence) else [size, size]
    if len(both) != 2 or any(not isinstance(length, int) or length < 1 for length in both):
        raise BadInput(f"size: expected pixels, one number or (height, width), got {size!r}")
    return both


def _check_range(name: str, value: tuple[float, float], most: float) -> tuple[float, float]:
    pair = isinstance(value, Sequence) and len(value) == 2
    if not pair or not 0 < value[0] <= value[1] <= most or math.isinf(value[1]):
        upper = f", not above {most:g}" if most < math.inf else ""
        raise BadInput(f"{name}: expected (least, largest), positive{upper}, got {value!r}")
    return (value[0], value[1])
