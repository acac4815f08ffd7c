"""Parameters of the flow that stores what teachers say of whole images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters.fields import (
    PIXELS_MAX,
    Location,
    make_weights_absolute,
)
from labelmill.schemas.parameters.relabel import TeacherSettings

OTHER_TABLES = frozenset({"images", "boxes", "label_maps", "statistics", "splits", "views", "anchors", "manifest"})


def parse_further_teachers(also: str) -> tuple[tuple[str, str], ...]:
    """Return the (name, weights) of `NAME=WEIGHTS` with commas between them; weights are pretrained by default.

    Raises BadInput for anything else.
    """
    if not also.strip():
        return ()
    found = []
    for given in also.split(","):
        name, equals, weights = (word.strip() for word in given.partition("="))
        if not name or (equals and not weights):
            raise BadInput(f"also: {given!r}: expected NAME=WEIGHTS, or NAME alone for pretrained weights")
        found.append((name, weights or "pretrained"))
    return tuple(found)


def _make_absolute(also: str) -> str:
    return ",".join(f"{name}={make_weights_absolute(weights)}" for name, weights in parse_further_teachers(also))


FurtherTeachers = Annotated[
    str,
    AfterValidator(_make_absolute),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^$|^[^=,]+(=(/|package:|pretrained)[^,]*)?(,[^=,]+(=(/|package:|pretrained)[^,]*)?)*$",
        }
    ),
]


class PseudolabelParameters(TeacherSettings):
    """Run fixed teachers over a dataset's images and store how likely each class is; thresholds come later, by SQL."""

    also: FurtherTeachers = Field(
        "",
        description="further teachers with the same classes, NAME=WEIGHTS with commas between them; probabilities are "
        "averaged over all teachers",
    )
    views: Literal["whole", "flip"] = Field(
        "whole", description="whole: the image; flip: the mean over it and its mirror image"
    )
    top_k: int = Field(5, ge=1, le=1000, description="likeliest classes that are kept of each image")
    split: str | None = Field(None, description="only this split; default: all")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    image_root: Location | None = Field(
        None, description="folder or URL of the images when they are elsewhere than at ingest"
    )
    table: str = Field("pseudo_labels", pattern="^[a-z][a-z0-9_]{0,62}$", description="name of the table")
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="threads that decode and run the teachers, with a GPU only decode; 0 means one a core",
    )
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="reject images with more pixels than this")

    @model_validator(mode="after")
    def _check_table(self) -> PseudolabelParameters:
        if self.table in OTHER_TABLES:
            raise BadInput(f"table: {self.table!r} is the name of another table of a dataset")
        return self
