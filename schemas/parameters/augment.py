"""Parameters of the flow that draws, records and writes views of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from labelmill.schemas.errors import BadInput
from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import PIXELS_MAX, TABLE_PATTERN, FlowParameters, LocalPath, Location
from labelmill.schemas.policy_presets import POLICY_FILES, PRESETS, find_preset

EPOCHS_MAX = 10_000


def _check_policy(policy: str) -> str:
    if policy.endswith(POLICY_FILES):
        return str(Path(policy).expanduser().absolute())
    return find_preset(policy).name


PolicyName = Annotated[
    str,
    AfterValidator(_check_policy),
    WithJsonSchema({"type": "string", "pattern": rf"^(/.*\.ya?ml|{'|'.join(PRESETS)})$"}),
]
"""A preset's name, or the path of a file in YAML."""


class AugmentParameters(FlowParameters):
    """Draw views of a dataset's images by a policy: record them, or write them as a dataset of their own."""

    store: Location = Field(description="folder or URL of the store that holds the dataset")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    policy: PolicyName = Field("weak", description=f"{', '.join(PRESETS)}, or a file *.yaml with operations")
    seed: int = Field(0, ge=-(2**63), le=2**63 - 1, description="another seed gives other views")
    epochs: int = Field(1, ge=1, le=EPOCHS_MAX, description="views of each image")
    first_epoch: int = Field(0, ge=0, le=2**31 - 1 - EPOCHS_MAX, description="number of the first epoch")
    split: str | None = Field(None, description="only this split; default: all")
    into: DatasetName | None = Field(
        None, description="name of a new dataset in the store for the views; without it they are recorded only"
    )
    out: LocalPath | None = Field(None, description="folder for the files of the new dataset")
    format: Literal["jpeg", "png"] = Field("jpeg", description="of the files; png keeps every value")
    quality: int = Field(95, ge=1, le=100, description="of JPEGs")
    masks: bool = Field(True, description="carry the masks and polygons of boxes along, as RLE")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    boxes_version: int | None = Field(None, ge=1, description="version of the boxes table; default: the latest")
    image_root: Location | None = Field(
        None, description="folder or URL of the images when they are elsewhere than at ingest"
    )
    table: str = Field("views", pattern=TABLE_PATTERN, description="name of the table that records the views")
    workers: int = Field(0, ge=0, le=256, description="threads that decode, change and write images; 0: one a core")
    shard_size: int = Field(2048, ge=1, le=1_000_000, description="images in a shard; a killed run resumes at a shard")
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="reject images with more pixels than this")
    sheet_views: int = Field(24, ge=0, le=1000, description="views on the contact sheet")
    report: LocalPath | None = Field(
        None, description="file for the contact sheet; default: reports/vN.html in the folder of the table of views"
    )

    @model_validator(mode="after")
    def _check_places(self) -> AugmentParameters:
        if (self.into is None) != (self.out is None):
            raise BadInput("out: expected a folder together with into, and none without")
        if self.into == self.dataset:
            raise BadInput(f"into: expected another name than the dataset's own, {self.dataset}")
        if self.table in ("images", "boxes"):
            raise BadInput(f"table: {self.table!r} is the name of a table of the dataset itself")
        return self
