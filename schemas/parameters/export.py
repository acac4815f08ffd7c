"""Parameters of the flow that writes datasets out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import FlowParameters, LocalPath, Location


class ExportParameters(FlowParameters):
    """Write a dataset out for other tools: CSV, COCO, YOLO, WebDataset or an ImageFolder tree."""

    store: Location = Field(description="folder or URL of the store that holds the dataset")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    format: Literal["csv", "coco", "yolo", "webdataset", "imagefolder"] = Field(description="what to write")
    out: LocalPath = Field(description="folder for the files: one that does not exist, is empty, or is of this export")
    split: str | None = Field(None, description="export only this split; default: all")
    fraction: float = Field(
        1.0, gt=0, le=1, description="share of the images, drawn by --seed; a smaller share is part of a larger one"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="decides which images a fraction holds")
    images: Literal["link", "copy", "none"] = Field(
        "link",
        description="link: files that lie in a folder are linked, others copied; copy: all; none: annotations alone",
    )
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    boxes_version: int | None = Field(None, ge=1, description="version of the boxes table; default: the latest")
    shard_images: int = Field(1000, ge=1, le=100_000, description="images in a shard of a WebDataset")
    workers: int = Field(0, ge=0, le=256, description="threads that write images; 0 means four for each core")
