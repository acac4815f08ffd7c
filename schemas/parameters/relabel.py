"""Parameters of the flows that run a teacher."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import (
    PIXELS_MAX,
    Device,
    FlowParameters,
    InputSize,
    LocalPath,
    Location,
    Share,
    WeightsName,
)
from labelmill.schemas.parameters.ingest import IngestImagenetParameters


class TeacherSettings(FlowParameters):
    """What every run of teachers over a dataset takes."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's images table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    teacher: str = Field(
        min_length=1,
        description="model name of timm, torchvision/NAME, or wrn_28_2, resnet18_32 or conv4 for images of 32 pixels; "
        "for example tf_efficientnet_lite0",
    )
    weights: WeightsName = Field(
        "pretrained",
        min_length=1,
        description="a .safetensors or .pth file, package:NAME for a file in an installed package, or pretrained",
    )
    classes: str = Field(
        "auto",
        min_length=1,
        description="the teacher's class list: auto (that of a file which was trained here; else ImageNet for 1000 "
        "outputs), imagenet-1k, none, or a text file with one class a line, in order: a wnid, a name, or wnid<tab>name",
    )
    input_size: InputSize | None = Field(
        None, description="pixels, or height x width such as 224x320; default: the teacher's own"
    )
    precision: Literal["fp32", "fast"] = Field(
        "fp32",
        description="fp32: the teacher's own numbers; fast: bfloat16 where the processor computes with it and a "
        "faster resize, what it gives moves a little (docs/performance.md)",
    )
    shard_size: int = Field(2048, ge=1, le=100_000, description="images in a shard; a killed run resumes at a shard")
    device: Device = Field(
        "auto",
        description="where the teacher runs: auto (all CUDA devices when there are any, else the CPU), one (a CUDA "
        "device that no other run holds, waiting for it; the CPU when there is none), cpu, cuda (all of them), or "
        "some, such as cuda:0 or cuda:0,2",
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="images in a forward pass; default: 16 on a CPU, 64 on a GPU"
    )


class TeacherParameters(TeacherSettings):
    """What every run of a teacher that makes label maps takes."""

    top_k: int = Field(5, ge=1, le=100, description="classes kept in each cell of a map")
    scaled_decoding: bool = Field(
        False,
        description="let the JPEG decoder shrink pictures at least 4 times the input size, labels move a little",
    )
    runner: Literal["threads", "ray", "dask"] = Field(
        "threads",
        description="where shards are labelled: threads of this process, or processes of a Ray or Dask cluster",
    )
    runner_address: str | None = Field(
        None, description="a running cluster, such as ray://head:10001 or tcp://scheduler:8786; default: one of our own"
    )
    runner_workers: int = Field(
        0, ge=0, le=4096, description="processes of the cluster that work at a time; 0 means one for each core here"
    )
    calibration_images: int = Field(
        256, ge=8, le=10_000, description="images on which the temperature of the pooled labels is fitted"
    )


class RelabelParameters(TeacherParameters):
    """Run a teacher over a dataset's images and store a label map for each."""

    split: str | None = Field(None, description="relabel only this split; default: all")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    image_root: Location | None = Field(
        None, description="folder or URL of the images when they are elsewhere than at ingest"
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="threads that decode and run the teacher, with a GPU only decode; 0 means one a core",
    )
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="reject images with more pixels than this")
    share: Share | None = Field(
        None,
        description="label only this share of the shards, such as 2/4 for the second of four, while other machines "
        "label the others; whoever ends last makes the version; default: all",
    )


class ImagenetPipelineParameters(TeacherParameters, IngestImagenetParameters):
    """Ingest ImageNet, run a teacher over one split of it and write a page that shows the label maps."""

    store: Location = Field(description="folder or URL of the store; made when it does not exist")
    dataset: DatasetName = Field("imagenet", description="name of the dataset in the store")
    report: LocalPath | None = Field(
        None, description="file for the page; default: reports/vN.html in the folder of the label maps"
    )
