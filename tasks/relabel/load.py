"""From a file to the tensor that a teacher sees: read, check, decode, resize, normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from labelmill.models.fast_forward import Precision
from labelmill.models.teacher import Teacher
from labelmill.schemas.locations import is_object_url
from labelmill.tasks.images.decode_image import Pixels, decode_array, decode_rgb
from labelmill.tasks.images.read_ingested import read_ingested
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.objects.client import in_parallel

Resizer = Literal["pillow", "torchvision"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

_TORCHVISION_FILTERS = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}

SCALED_DECODING_RATIO = 4
"""JPEGs so many times the input size, or more, are decoded smaller on request, to no less than half that ratio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageToLabel:
    """An image that a teacher shall see, a file or an object's URL.

    `sha256` is what its content must still be; None where the ingest did not read it, so that its length alone tells.
    """

    path: str | Path
    sha256: str | None
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """How files become pixels: all that decides their values.

    size: (height, width) in pixels; the whole image is resized to it, aspect ratio not kept. max_pixels bounds an
    image's area before it is decoded. resizer: "pillow" is what teachers were trained with; "torchvision" takes a
    quarter of the time and differs by rounding, in bicubic by up to 12 of 255 in 0.02 % of the values.
    scaled_decoding: let the JPEG decoder itself shrink pictures of SCALED_DECODING_RATIO times the size and more.
    """

    size: tuple[int, int]
    interpolation: str
    max_pixels: int
    resizer: Resizer = "pillow"
    scaled_decoding: bool = False


def choose_resizer(precision: Precision, interpolation: str) -> Resizer:
    """Return the resizer of a precision: the exact one for "fp32", the faster one for "fast" where there is one."""
    return "torchvision" if precision == "fast" and interpolation in _TORCHVISION_FILTERS else "pillow"


def load_resized(image: ImageToLabel, loading: Loading) -> Pixels:
    """Read an image and resize the whole of it; return (height, width, 3) uint8 RGB.

    Raises RejectedImage, with reason `changed` when the file is not the one that was ingested.
    """
    return load_at_sizes(image, (loading,))[0]


def load_at_sizes(image: ImageToLabel, loadings: Sequence[Loading]) -> list[Pixels]:
    """Read an image once and resize the whole of it in several ways (see load_resized)."""
    data = read_ingested(image.path, size=image.bytes, sha256=image.sha256)
    decoded: dict[tuple[Resizer, tuple[int, int] | None, int], Image.Image | Tensor] = {}
    resized = []
    for loading in loadings:
        at_least = _decoded_size(loading)
        way = (loading.resizer, at_least, loading.max_pixels)
        if way not in decoded:
            decoded[way] = _decode(data, loading, at_least)
        resized.append(_resize(decoded[way], loading))
    return resized


def _decoded_size(loading: Loading) -> tuple[int, int] | None:
    ratio = SCALED_DECODING_RATIO // 2
    height, width = loading.size
    return (height * ratio, width * ratio) if loading.scaled_decoding else None


def _decode(data: bytes, loading: Loading, at_least: tuple[int, int] | None) -> Image.Image | Tensor:
    if loading.resizer == "pillow":
        return decode_rgb(data, max_pixels=loading.max_pixels, at_least=at_least)
    return torch.from_numpy(decode_array(data, max_pixels=loading.max_pixels, at_least=at_least))


def _resize(picture: Image.Image | Tensor, loading: Loading) -> Pixels:
    height, width = loading.size
    if isinstance(picture, Image.Image):
        return np.asarray(picture.resize((width, height), _FILTERS[loading.interpolation]))
    resized = v2.resize(
        picture.permute(2, 0, 1),  # channels last in memory: twice as fast as planes
        [height, width],
        interpolation=_TORCHVISION_FILTERS[loading.interpolation],
        antialias=True,
    )
    lines: npt.NDArray[np.uint8] = resized.permute(1, 2, 0).numpy()
    return lines


def load_each(images: Sequence[ImageToLabel], loading: Loading) -> list[Pixels | RejectedImage]:
    """Return each image's pixels (height, width, 3) uint8, or why there are none."""

    def load(image: ImageToLabel) -> Pixels | RejectedImage:
        try:
            return load_resized(image, loading)
        except RejectedImage as rejected:
            return rejected

    if any(is_object_url(image.path) for image in images):  # a bucket's answers are waited for together
        return in_parallel(load, images)
    return [load(image) for image in images]


def normalise(pixels: Sequence[Pixels], teacher: Teacher) -> Tensor:
    """Return (B, 3, H, W) float32 in the teacher's range from B arrays (H, W, 3) uint8."""
    height, width, _ = pixels[0].shape
    scale, shift = (torch.tensor(values).repeat(width) for values in teacher.preprocessing.scale_and_shift())
    lines = torch.from_numpy(np.stack(pixels)).view(len(pixels), height, width * 3)
    batch = torch.empty(lines.shape)
    for row, image in zip(batch, lines, strict=True):  # one by one: they stay in the cache
        row.copy_(image).mul_(scale).add_(shift)
    return batch.view(-1, height, width, 3).permute(0, 3, 1, 2)  # channels last in memory
