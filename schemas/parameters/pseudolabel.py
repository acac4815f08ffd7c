"""Parameters of the flow that stores what teachers say of whole images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from labelmill.schemas.errors import BadInput
from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import (
    PIXELS_MAX,
    Device,
    FlowParameters,
    InputSize,
    Location,
    WeightsName,
    make_weights_absolute,
)

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


class PseudolabelParameters(FlowParameters):
    """Run fixed teachers over a dataset's images and store how likely each class is; thresholds come later, by SQL."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's images table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    teacher: str = Field(
        min_length=1, description="model name of timm, or torchvision/NAME; for example tf_efficientnet_lite0"
    )
    weights: WeightsName = Field(
        "pretrained",
        min_length=1,
        description="a .safetensors or .pth file, package:NAME for a file in an installed package, or pretrained",
    )
    classes: str = Field(
        "auto",
        min_length=1,
        description="the teachers' class list: auto (ImageNet for 1000 outputs), imagenet-1k, none, or a text file "
        "with one class a line, in order: a wnid, a name, or wnid<tab>name",
    )
    also: FurtherTeachers = Field(
        "",
        description="further teachers with the same classes, NAME=WEIGHTS with commas between them; probabilities are "
        "averaged over all teachers",
    )
    views: Literal["whole", "flip"] = Field(
        "whole", description="whole: the image; flip: the mean over it and its mirror image"
    )
    input_size: InputSize | None = Field(
        None, description="pixels, or height x width such as 224x320; default: each teacher's own"
    )
    top_k: int = Field(5, ge=1, le=1000, description="likeliest classes that are kept of each image")
    precision: Literal["fp32", "fast"] = Field(
        "fp32",
        description="fp32: the teachers' own numbers; fast: bfloat16 where the processor computes with it and a "
        "faster resize, probabilities move a little (docs/pseudo-labels.md)",
    )
    split: str | None = Field(None, description="only this split; default: all")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    image_root: Location | None = Field(
        None, description="folder or URL of the images when they are elsewhere than at ingest"
    )
    table: str = Field("pseudo_labels", pattern="^[a-z][a-z0-9_]{0,62}$", description="name of the table")
    device: Device = Field(
        "auto",
        description="where the teachers run: auto (all CUDA devices when there are any, else the CPU), one (a CUDA "
        "device that no other run holds, waiting for it; the CPU when there is none), cpu, cuda (all of them), or "
        "some, such as cuda:0 or cuda:0,2",
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="images in a forward pass; default: 16 on a CPU, 64 on a GPU"
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="threads that decode and run the teachers, with a GPU only decode; 0 means one a core",
    )
    shard_size: int = Field(2048, ge=1, le=100_000, description="images in a shard; a killed run resumes at a shard")
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="reject images with more pixels than this")

    @model_validator(mode="after")
    def _check_table(self) -> PseudolabelParameters:
        if self.table in OTHER_TABLES:
            raise BadInput(f"table: {self.table!r} is the name of another table of a dataset")
        return self
