"""How far labels that were made faster are from those of the same images in fp32."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from labelmill.models.label_encoding import EncodedMap, gather_maps
from labelmill.models.map_agreement import compare_maps
from labelmill.models.teacher import Teacher
from labelmill.tasks.relabel.settings import RelabelSettings


class Movement(BaseModel):
    """How far the pooled labels of `images` images and crops of them are from those in fp32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    total_variation: float
    same_class: float


def measure_movement(
    maps: Sequence[EncodedMap],
    exact: Sequence[EncodedMap | None],
    teacher: Teacher,
    settings: RelabelSettings,
    temperature: float,
) -> Movement | None:
    """Compare maps with those of the same images in fp32; None when none of these has one."""
    pairs = [(m, e) for m, e in zip(maps, exact, strict=True) if e is not None]
    if not pairs:
        return None
    moved, still = (
        gather_maps(
            some, grid=teacher.map_size(*settings.input_size), top_k=settings.top_k, step=settings.logit_step,
            num_classes=teacher.num_classes,
        )
        for some in zip(*pairs, strict=True)
    )  # fmt: skip
    found = compare_maps(moved, still, absent_share=settings.absent_share, temperature=temperature)
    return Movement(
        images=len(pairs),
        total_variation=round(float(found.total_variation.mean()), 5),
        same_class=round(float(found.same_pooled.float().mean()), 5),
    )
