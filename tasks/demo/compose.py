"""Plan the demo's images: variants of photos, and scenes of two photos under the label of one of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from PIL import Image, ImageEnhance, ImageOps

from labelmill.tasks.demo.photos import PHOTOS, Photo, load_photo

SCENE_SEED = 20210601
"""Decides which photo comes first in a scene and whose label the scene bears."""

HALF_PX = 400
"""Side of the square half of a scene: about what the photos have."""

CLOSER_SHARE = 0.65
"""Side of the closer variant in sides of its photo."""

DARKER = 0.6

Variant = Literal["", "flipped", "closer", "darker"]
VARIANTS: tuple[Variant, ...] = ("", "flipped", "closer", "darker")

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in [0, 1] of the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Single:
    """A photo, or a variant of it, as one image."""

    photo: Photo
    variant: Variant

    @property
    def image_id(self) -> str:
        """Path below the dataset's root."""
        ending = f"_{self.variant}" if self.variant else ""
        return f"{self.photo.label}/{self.photo.name}{ending}.jpg"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Two photos in one image, side by side (`across`) or one above the other, under the label of `labelled`."""

    photos: tuple[Photo, Photo]
    across: bool
    labelled: int

    @property
    def label(self) -> str:
        """The wnid that the whole scene bears."""
        return self.photos[self.labelled].label

    @property
    def image_id(self) -> str:
        """Path below the dataset's root."""
        first, second = (photo.name for photo in self.photos)
        return f"{self.label}/{first}_{'beside' if self.across else 'above'}_{second}.jpg"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return (2 * HALF_PX, HALF_PX) if self.across else (HALF_PX, 2 * HALF_PX)

    def half(self, place: int) -> Box:
        """Return where photo `place` (0 or 1) lies in the image."""
        low, high = place / 2, (place + 1) / 2
        return (low, 0.0, high, 1.0) if self.across else (0.0, low, 1.0, high)


def plan_singles(photos: Sequence[Photo] = PHOTOS) -> list[Single]:
    """Return every variant of every photo."""
    return [Single(photo=photo, variant=variant) for photo in photos for variant in VARIANTS]


def plan_scenes(photos: Sequence[Photo] = PHOTOS, *, seed: int = SCENE_SEED) -> list[Scene]:
    """Return a scene of each kind for every two photos; the same at every run with the same seed."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    scenes = []
    for first, second in combinations([photo for photo in photos if photo.in_scenes], 2):
        for across in (True, False):
            pair = (first, second) if draw.random() < 0.5 else (second, first)
            scenes.append(Scene(photos=pair, across=across, labelled=int(draw.random() < 0.5)))
    return scenes


def draw_single(single: Single) -> Image.Image:
    """Return the image of a photo's variant."""
    picture = load_photo(single.photo)
    if single.variant == "flipped":
        return ImageOps.mirror(picture)
    if single.variant == "closer":
        side = (round(picture.width * CLOSER_SHARE), round(picture.height * CLOSER_SHARE))
        return _cut(picture, side, single.photo.focus)
    if single.variant == "darker":
        return ImageEnhance.Brightness(picture).enhance(DARKER)
    return picture


def draw_scene(scene: Scene) -> Image.Image:
    """Return the image of a scene: the largest square of each photo around its focus, in its half."""
    image = Image.new("RGB", scene.size)
    for place, photo in enumerate(scene.photos):
        picture = load_photo(photo)
        side = min(picture.size)
        square = _cut(picture, (side, side), photo.focus).resize((HALF_PX, HALF_PX), Image.Resampling.LANCZOS)
        left, top = scene.half(place)[:2]
        image.paste(square, (round(left * image.width), round(top * image.height)))
    return image


def _cut(picture: Image.Image, size: tuple[int, int], focus: tuple[float, float]) -> Image.Image:
    """Cut (width, height) pixels with the focus as near to their middle as the border allows."""
    left = min(max(round(focus[0] * picture.width - size[0] / 2), 0), picture.width - size[0])
    top = min(max(round(focus[1] * picture.height - size[1] / 2), 0), picture.height - size[1])
    return picture.crop((left, top, left + size[0], top + size[1]))
