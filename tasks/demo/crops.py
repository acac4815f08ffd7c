"""Random crops of scenes whose content is known, and how often a label names it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from labelmill.schemas.errors import BadInput
from labelmill.tasks.demo.compose import Box, Scene
from labelmill.tasks.read_label_maps import LabelMaps

CROP_SEED = 1
CROPS_PER_SCENE = 32

INSIDE_MIN = 0.8
"""A crop holds what is in a half when at least this share of its area lies in that half."""

AREA_RANGE = (0.08, 1.0)
ASPECT_RANGE = (3 / 4, 4 / 3)
"""Share of the area, and width by height in pixels: those of torchvision's RandomResizedCrop."""

BATCH = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownCrop:
    """A crop of a scene: `content` names the photo in it, `acceptable` the wnids that are true of that."""

    image_id: str
    box: Box
    content: str
    acceptable: tuple[str, ...]
    label: str  # the wnid of the whole scene


@dataclass(frozen=True, kw_only=True, slots=True)
class CropScore:
    """Over a number of crops: how many the pooled label's top class names, how many the image's single label names.

    `mean_prob` is the mean of the probability that the pooled label gives to the acceptable classes together.
    """

    crops: int
    named: int
    label_names: int
    mean_prob: float


def draw_known_crops(
    scenes: Sequence[Scene], *, per_scene: int = CROPS_PER_SCENE, seed: int = CROP_SEED
) -> list[KnownCrop]:
    """Draw crops as trainers do and keep those that lie within one half; the same at every run with the same seed."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    crops = []
    for scene in scenes:
        kept = 0
        while kept < per_scene:
            box = _draw_box(draw, scene.size)
            for place, photo in enumerate(scene.photos):
                if share_inside(box, scene.half(place)) >= INSIDE_MIN:
                    crops.append(
                        KnownCrop(
                            image_id=scene.image_id,
                            box=box,
                            content=photo.name,
                            acceptable=photo.acceptable,
                            label=scene.label,
                        )
                    )
                    kept += 1
    return crops


def _draw_box(draw: random.Random, size: tuple[int, int]) -> Box:
    low, high = map(math.log, ASPECT_RANGE)
    while True:
        area = AREA_RANGE[0] + draw.random() * (AREA_RANGE[1] - AREA_RANGE[0])
        aspect = math.exp(low + draw.random() * (high - low)) * size[1] / size[0]
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= 1 and height <= 1:
            left, top = draw.random() * (1 - width), draw.random() * (1 - height)
            return (left, top, left + width, top + height)


def share_inside(box: Box, half: Box) -> float:
    """Return which share of the area of `box` lies in `half`."""
    width = max(0.0, min(box[2], half[2]) - max(box[0], half[0]))
    height = max(0.0, min(box[3], half[3]) - max(box[1], half[1]))
    return width * height / ((box[2] - box[0]) * (box[3] - box[1]))


def score_crops(maps: LabelMaps, crops: Sequence[KnownCrop], mode: str) -> CropScore:
    """Pool the label of every crop in a mode and compare it with what the crop holds.

    Raises BadInput when there are no crops, or when the teacher's classes have no wnids.
    """
    if not crops:
        raise BadInput("crops: expected at least one")
    ids = _class_ids(maps)
    named, probability = 0, 0.0
    for start in range(0, len(crops), BATCH):
        batch = crops[start : start + BATCH]
        rows = maps.rows_of([crop.image_id for crop in batch])
        labels = maps.pool(rows, torch.tensor([crop.box for crop in batch]), mode)
        for crop, label in zip(batch, labels, strict=True):
            true = [ids[wnid] for wnid in crop.acceptable if wnid in ids]
            named += int(label.argmax()) in true
            probability += float(label[true].sum())
    return CropScore(
        crops=len(crops),
        named=named,
        label_names=sum(crop.label in crop.acceptable for crop in crops),
        mean_prob=probability / len(crops),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AloneName:
    """What the teacher calls a photo that stands alone: the pooled label's top class, and whether that is true."""

    name: str
    is_true: bool


def name_alone(maps: LabelMaps, image_id: str, acceptable: Sequence[str]) -> AloneName:
    """Say what the pooled label of a whole image names it, and whether that is among the `acceptable` wnids."""
    ids = _class_ids(maps)
    label = maps.pool(maps.rows_of([image_id]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    top = int(label.argmax())
    listed = maps.metadata.classes
    name = listed.classes[top].name.partition(",")[0] if listed else str(top)
    return AloneName(name=name, is_true=top in {ids.get(wnid) for wnid in acceptable})


def _class_ids(maps: LabelMaps) -> dict[str, int]:
    listed = maps.metadata.classes
    ids = {c.wnid: place for place, c in enumerate(listed.classes) if c.wnid} if listed else {}
    if not ids:
        raise BadInput(f"{maps.version.table}: expected a teacher whose classes have wnids")
    return ids
