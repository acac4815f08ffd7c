"""What a teacher's images go through before it sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How an image becomes a teacher's input; RGB, in units of [0, 1] before `mean` and `std`.

    `native_size` is the (height, width) in pixels that the teacher was trained or published for. `fixed_size` says
    that it takes no other. The whole image is resized, so that a cell's place in a map is a linear function of its
    place in the image; the EXIF orientation is not applied, as trainers of ImageNet do not either.
    """

    mean: Triple
    std: Triple
    interpolation: str
    native_size: tuple[int, int]
    fixed_size: bool = False
    pixel_range: tuple[float, float] = (0.0, 1.0)
    color: str = "RGB"
    resize: str = "whole image resized, aspect ratio not kept"
    exif_orientation: str = "ignored"

    def scale_and_shift(self) -> tuple[Triple, Triple]:
        """Return by channel what a pixel of 0 to 255 is multiplied by, and what is added to it then."""
        pairs = list(zip(self.mean, self.std, strict=True))
        return triple(1 / (255 * std) for _, std in pairs), triple(-mean / std for mean, std in pairs)

    def facts(self) -> dict[str, Any]:
        """Return the fields for lineage, as JSON takes them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def triple(values: Iterable[float]) -> Triple:
    """Return three floats of any sequence that holds three."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue
