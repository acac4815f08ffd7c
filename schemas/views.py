"""A view: an image as a policy changed it, told by the steps that make it again without drawing anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from labelmill.schemas.errors import BadInput

Filter = Literal["nearest", "linear", "area", "cubic"]

Fill = tuple[
    Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
]
"""Red, green and blue of what no pixel of the image covers."""

MOSAIC_TILES = 4


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CropStep(_Step):
    """Cut a rectangle, in pixels. Left and top count from outside `reflect` pixels of mirror image around the frame."""

    op: Literal["crop"] = "crop"
    left: int = Field(ge=0)
    top: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    reflect: int = Field(0, ge=0)


class ResizeStep(_Step):
    """Resize the frame to a size in pixels, not keeping its aspect ratio."""

    op: Literal["resize"] = "resize"
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    filter: Filter


class FlipStep(_Step):
    """Mirror left to right."""

    op: Literal["flip"] = "flip"


class WarpStep(_Step):
    """Move pixels within the frame.

    `amount`: of rotate degrees against the clock, about the middle; of shear pixels to the right for each pixel down
    (shear_x) or down for each to the right (shear_y), from the top left; of translate pixels to the right or down.
    """

    op: Literal["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]
    amount: float = Field(allow_inf_nan=False)
    fill: Fill
    filter: Literal["nearest", "linear"]


class AdjustStep(_Step):
    """Change colours by an amount: a factor (1 changes nothing), bits to keep, or the least value that is inverted."""

    op: Literal["brightness", "contrast", "color", "sharpness", "posterize", "solarize"]
    amount: float = Field(ge=0, allow_inf_nan=False)


class ToneStep(_Step):
    """Change colours in the one way that there is."""

    op: Literal["auto_contrast", "equalize", "invert"]


class CutoutStep(_Step):
    """Fill a rectangle, in pixels of the frame."""

    op: Literal["cutout"] = "cutout"
    left: int = Field(ge=0)
    top: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    fill: Fill


class MosaicTile(_Step):
    """An image of a mosaic: resized to `scaled` pixels, of which width x height from `skip` on lie at left, top."""

    image_id: str | None = Field(description="None for the image that the view is of")
    left: int = Field(ge=0)
    top: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    skip_left: int = Field(ge=0)
    skip_top: int = Field(ge=0)
    scaled_width: int = Field(ge=1)
    scaled_height: int = Field(ge=1)


class MosaicStep(_Step):
    """Put four images around a point; only ever the first step. Sizes in pixels."""

    op: Literal["mosaic"] = "mosaic"
    width: int = Field(ge=2)
    height: int = Field(ge=2)
    filter: Filter
    tiles: tuple[MosaicTile, ...] = Field(min_length=MOSAIC_TILES, max_length=MOSAIC_TILES)


Step = CropStep | ResizeStep | FlipStep | WarpStep | AdjustStep | ToneStep | CutoutStep | MosaicStep

_STEPS: TypeAdapter[tuple[Step, ...]] = TypeAdapter(tuple[Annotated[Step, Field(discriminator="op")], ...])


def dump_steps(steps: tuple[Step, ...]) -> str:
    """Return steps as JSON, from which `parse_steps` makes the very same ones: numbers keep every digit."""
    return json.dumps([step.model_dump(mode="json") for step in steps], separators=(",", ":"))


def parse_steps(text: str) -> tuple[Step, ...]:
    """Return the steps of a record; raise BadInput for a text that holds none."""
    try:
        return _STEPS.validate_json(text)
    except ValidationError as error:
        raise BadInput(
            f"steps: {text[:80]!r}: expected a list of steps as recorded: {error.errors()[0]['msg']}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What makes a view, and what comes of it.

    width, height: of the view, in pixels; box: x1 y1 x2 y2 in [0, 1] of the image as stored, the smallest around all
    that the view shows of it, None for a mosaic; flipped: whether it is mirrored left to right.
    """

    steps: tuple[Step, ...]
    width: int
    height: int
    box: tuple[float, float, float, float] | None
    flipped: bool


VIEWS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # of the image that the view is of
        pa.field("split", pa.string(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("policy_digest", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("view_id", pa.string()),  # image_id of the view's file in this dataset; null where none was written
        pa.field("width", pa.int32()),  # pixels of the view
        pa.field("height", pa.int32()),
        # The smallest box around all that the view shows, in [0, 1] of the image; null for a mosaic.
        pa.field("x1", pa.float32()),
        pa.field("y1", pa.float32()),
        pa.field("x2", pa.float32()),
        pa.field("y2", pa.float32()),
        pa.field("flipped", pa.bool_()),
        pa.field("steps", pa.string()),  # JSON: all that replaying needs, see labelmill.schemas.views
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)
"""One row for every image and epoch, null where the image was rejected."""
