"""Policies of augmentation: small typed operations in an order. What they draw is in `schemas/views.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from labelmill.schemas.auto_augment import RAND_AUGMENT_LEVELS, PolicyName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.versions import digest_json
from labelmill.schemas.views import Fill

Sides = Annotated[int, Field(ge=1, le=16_384)]
Probability = Annotated[float, Field(ge=0, le=1)]
GREY: Fill = (128, 128, 128)

_REVISION = 1
"""Counts changes of what policies draw: a view of another revision is another view."""


def _both_sides(size: object) -> object:
    return (size, size) if isinstance(size, int) else size


Size = Annotated[tuple[Sides, Sides], BeforeValidator(_both_sides)]
"""Height and width in pixels; one number stands for both."""

Range = tuple[float, float]


class _Operation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_range(name: str, value: tuple[float, float], most: float) -> None:
    if not 0 < value[0] <= value[1] <= most:
        upper = "" if most == float("inf") else f", not above {most:g}"
        raise BadInput(f"{name}: expected [least, largest], positive{upper}, got {list(value)}")


class RandomResizedCrop(_Operation):
    """Cut a part of random area and shape and resize it (Szegedy et al. 2015), drawn as torchvision draws it."""

    op: Literal["random_resized_crop"] = "random_resized_crop"
    size: Size = Field((224, 224), description="of the view: height and width in pixels")
    scale: Range = Field((0.08, 1.0), description="least and largest share of the image's area")
    ratio: Range = Field((3 / 4, 4 / 3), description="least and largest width by height")

    @model_validator(mode="after")
    def _check(self) -> RandomResizedCrop:
        _check_range("scale", self.scale, 1.0)
        _check_range("ratio", self.ratio, float("inf"))
        return self


class PadCrop(_Operation):
    """Pad by reflection and cut at random."""

    op: Literal["pad_crop"] = "pad_crop"
    padding: int = Field(4, ge=0, le=4096, description="pixels of mirror image on each side")
    size: Size | None = Field(None, description="of the view, in pixels; default: the image's own")


class Resize(_Operation):
    """Resize the whole image, not keeping its aspect ratio."""

    op: Literal["resize"] = "resize"
    size: Size = Field(description="height and width in pixels")


class MultiScale(_Operation):
    """Resize to a random short side, keeping the aspect ratio."""

    op: Literal["multi_scale"] = "multi_scale"
    short_sides: tuple[Sides, ...] = Field(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800), min_length=1, description="one of them is drawn"
    )
    long_side_max: Sides = Field(1333, description="smaller short sides are used where the long one would exceed this")


class Flip(_Operation):
    """Mirror left to right."""

    op: Literal["flip"] = "flip"
    p: Probability = 0.5


class ColorJitter(_Operation):
    """Change brightness, contrast and saturation by random factors, in random order."""

    op: Literal["color_jitter"] = "color_jitter"
    brightness: Probability = Field(0.4, description="the factor is drawn from 1 ± this")
    contrast: Probability = 0.4
    color: Probability = 0.4


class RandAugment(_Operation):
    """Apply some operations of 14, drawn evenly, at one magnitude (Cubuk et al. 2020)."""

    op: Literal["rand_augment"] = "rand_augment"
    operations: int = Field(2, ge=0, le=16, description="how many are applied, one after the other")
    magnitude: int = Field(9, ge=0, le=RAND_AUGMENT_LEVELS - 1, description="0 to 30")
    filter: Literal["nearest", "linear"] = "nearest"
    fill: Fill = GREY


class AutoAugment(_Operation):
    """Apply one of the 25 published pairs of operations (Cubuk et al. 2019)."""

    op: Literal["auto_augment"] = "auto_augment"
    policy: PolicyName = "imagenet"
    filter: Literal["nearest", "linear"] = "nearest"
    fill: Fill = GREY


class Cutout(_Operation):
    """Fill a square at a random place; it may reach over the edge (DeVries and Taylor 2017)."""

    op: Literal["cutout"] = "cutout"
    side: float = Field(0.5, gt=0, le=1, description="of the square, as a share of the shorter side")
    p: Probability = 1.0
    fill: Fill = GREY


class Mosaic(_Operation):
    """Put the image and three others around a random point, each covering its quarter (Bochkovskiy et al. 2020)."""

    op: Literal["mosaic"] = "mosaic"
    size: Size = Field((640, 640), description="height and width in pixels")
    centre: Range = Field((0.25, 0.75), description="where the point may lie, as shares of the sides")

    @model_validator(mode="after")
    def _check(self) -> Mosaic:
        _check_range("centre", self.centre, 1.0)
        if min(self.size) < 2 or not self.centre[1] < 1:
            raise BadInput("mosaic: expected a size of 2 pixels or more and a centre inside of it")
        return self


Operation = Annotated[
    RandomResizedCrop
    | PadCrop
    | Resize
    | MultiScale
    | Flip
    | ColorJitter
    | RandAugment
    | AutoAugment
    | Cutout
    | Mosaic,
    Field(discriminator="op"),
]


def _name_alone(operation: object) -> object:
    return {"op": operation} if isinstance(operation, str) else operation


class Policy(BaseModel):
    """Operations in the order in which they are applied; a bare name stands for an operation with its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("policy", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    operations: tuple[Annotated[Operation, BeforeValidator(_name_alone)], ...]
    min_visible: Probability = Field(0.1, description="a box of which less stays visible is left out")

    @model_validator(mode="after")
    def _check(self) -> Policy:
        if any(isinstance(operation, Mosaic) for operation in self.operations[1:]):
            raise BadInput("operations: mosaic can only come first")
        return self

    def digest(self) -> str:
        """Return what tells policies apart that draw other views, whatever their names; hex sha256."""
        return digest_json([_REVISION, self.model_dump(mode="json", include={"operations"})])


def make_policy(values: object, *, source: str) -> Policy:
    """Return the policy that a mapping describes; raise BadInput, naming `source` and each bad field."""
    if not isinstance(values, dict):
        raise BadInput(f"{source}: expected a mapping with operations, got {type(values).__name__}")
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{source}: {'; '.join(_explain(entry) for entry in error.errors())}") from error


def _explain(entry: Any) -> str:  # noqa: ANN401 - pydantic's own record of an error
    place = ".".join(str(part) for part in entry["loc"])
    words = entry["msg"].removeprefix("Value error, ")
    return f"{place}: {words}" if place else words
