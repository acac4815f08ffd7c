"""Parameters of the flows: one model each, which is also the command line's options and Prefect's form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import check_location
from labelmill.schemas.names import DatasetName, split_table_name

PIXELS_MAX = 178_956_970
"""Pillow's own bound on an image's area, in pixels: about 512 MiB of RGB."""

FILE_BYTES_MAX = 256 * 2**20
"""No photograph is larger; a larger file in an image folder is something else."""

_SIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")

_SHARE = re.compile(r"([1-9]\d{0,3})/([1-9]\d{0,3})")

_DEVICE = re.compile(r"(auto|one|cpu|cuda)(?:(?<=cuda):(\d{1,3}(?:,\d{1,3})*))?")


def parse_input_size(size: int | str) -> tuple[int, int]:
    """Return (height, width) in pixels of `224` or `"224x320"` (height x width); raise BadInput otherwise."""
    match = _SIZE.fullmatch(str(size))
    if match is None or min(int(g) for g in match.groups() if g) < 1:
        raise BadInput(f"input size {size!r}: expected pixels, such as 224, or height x width, such as 224x320")
    return int(match[1]), int(match[2] or match[1])


def parse_device(device: str) -> tuple[str, tuple[int, ...]]:
    """Return the kind of `auto`, `one`, `cpu`, `cuda` or `cuda:0,2` and the numbers it names, none for all.

    Raises BadInput for anything else.
    """
    match = _DEVICE.fullmatch(device)
    numbers = tuple(int(number) for number in match[2].split(",")) if match and match[2] else ()
    if match is None or len(set(numbers)) < len(numbers):
        raise BadInput(
            f"device {device!r}: expected auto, one, cpu, cuda (all of them), or some, each once, such as cuda:0 or "
            "cuda:0,2"
        )
    return match[1], numbers


def parse_share(share: str) -> tuple[int, int]:
    """Return (2, 4) of `2/4`, the second of four; raise BadInput for anything else."""
    match = _SHARE.fullmatch(share)
    if match is None or int(match[1]) > int(match[2]):
        raise BadInput(f"share {share!r}: expected which of how many, such as 2/4")
    return int(match[1]), int(match[2])


def _make_absolute(weights: str) -> str:
    """Keep a path of weights good for whoever reads the lineage in another folder, or runs the flow there."""
    if not weights or weights == "pretrained" or weights.startswith("package:"):
        return weights
    return str(Path(weights).expanduser().absolute())


def _check_device(device: str) -> str:
    parse_device(device)
    return device


def _check_share(share: str) -> str:
    parse_share(share)
    return share


def _check_input_size(size: object) -> object:
    if isinstance(size, int | str) and not isinstance(size, bool):
        parse_input_size(size)
    return size


def _check_local(path: str) -> str:
    if not path.strip():
        raise BadInput("expected a path, got nothing")
    if "://" in path and not path.startswith("file://"):
        raise BadInput(f"{path.split('://', 1)[0]}:// is not supported: expected a folder of this machine")
    return str(Path(path.removeprefix("file://")).expanduser().absolute())


def _check_location(path: str) -> str:
    if not path.strip():
        raise BadInput("expected a path or URL, got nothing")
    return check_location(path)


def _check_table(table: str) -> str:
    split_table_name(table)
    return table


# The patterns are for Prefect's form alone: a run that is scheduled does not know the folder that it was asked from.
LocalPath = Annotated[str, AfterValidator(_check_local), WithJsonSchema({"type": "string", "pattern": "^(/|file://)"})]
Location = Annotated[
    str, AfterValidator(_check_location), WithJsonSchema({"type": "string", "pattern": r"^(/|\w+://)"})
]
WeightsName = Annotated[
    str,
    AfterValidator(_make_absolute),
    WithJsonSchema({"type": "string", "pattern": "^(/|package:|pretrained$)"}),
]
Device = Annotated[str, AfterValidator(_check_device)]
Share = Annotated[str, AfterValidator(_check_share)]
InputSize = Annotated[int | str, BeforeValidator(_check_input_size)]
TableName = Annotated[str, AfterValidator(_check_table)]


class FlowParameters(BaseModel):
    """Base of all parameters: unknown names are refused, values never change."""

    # A refused URL may hold a password: errors do not repeat what was given.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class IngestParameters(FlowParameters):
    """What every ingest takes."""

    source: Location = Field(description="folder with the images, or s3://bucket/prefix or gs://bucket/prefix")
    store: Location = Field(
        description="folder of the store, or s3://bucket/prefix or gs://bucket/prefix; made when it does not exist"
    )
    dataset: DatasetName = Field(description="name of the dataset in the store")
    split: str = Field(
        "train", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="name of this part of the dataset: train, val, …"
    )
    id_prefix: str = Field(
        "", description="put before every image_id, for two splits that hold the same paths; for example val/"
    )
    workers: int = Field(0, ge=0, le=256, description="threads that read files; 0 means four for each core")
    chunk_size: int = Field(
        50_000, ge=1, le=1_000_000, description="files in a part; a killed ingest resumes at a part"
    )
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="reject images with more pixels than this")
    max_bytes: int = Field(FILE_BYTES_MAX, ge=1, description="reject files larger than this, in bytes")
    rehash: bool = Field(False, description="read every file again, also those whose size and time are unchanged")


class IngestFolderParameters(IngestParameters):
    """Ingest any tree of image files; the first folder below the source is the label."""

    labels: str = Field(
        "folder",
        pattern="^(folder|none)$",
        description="folder: the first folder of a path is its class; none: no labels",
    )


class IngestImagenetParameters(IngestParameters):
    """Ingest ImageNet: a tree of wnid folders, or the flat validation folder with the devkit's ground truth."""

    devkit: LocalPath | None = Field(
        None,
        description="folder with the devkit's meta.mat and ILSVRC2012_validation_ground_truth.txt; needed for a flat "
        "validation folder; with a tree, its 1000 classes become the dataset's class list",
    )


class TeacherParameters(FlowParameters):
    """What every run of a teacher takes."""

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
        description="the teacher's class list: auto (ImageNet for 1000 outputs), imagenet-1k, none, or a text file "
        "with one class a line, in order: a wnid, a name, or wnid<tab>name",
    )
    input_size: InputSize | None = Field(
        None, description="pixels, or height x width such as 224x320; default: the teacher's own"
    )
    top_k: int = Field(5, ge=1, le=100, description="classes kept in each cell of a map")
    precision: Literal["fp32", "fast"] = Field(
        "fp32",
        description="fp32: the teacher's own numbers; fast: bfloat16 where the processor computes with it and a "
        "faster resize, labels move a little (docs/performance.md)",
    )
    scaled_decoding: bool = Field(
        False,
        description="let the JPEG decoder shrink pictures at least 4 times the input size, labels move a little",
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


class ImportLabelMapsParameters(FlowParameters):
    """Import the label maps of ReLabel's authors: a .pt file for each image, in a tree that mirrors the images."""

    source: LocalPath = Field(description="folder of the .pt files: n01440764/n01440764_10026.pt for the image's .JPEG")
    store: Location = Field(description="folder or URL of the store that holds the dataset's images table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    teacher: str = Field(
        min_length=1, description="what made the maps, for the lineage; for example efficientnet-l2-ns-475"
    )
    classes: str = Field(
        "auto",
        min_length=1,
        description="what the class ids mean: auto (ImageNet for 1000 classes), imagenet-1k, none, or a text file with "
        "one class a line, in order: a wnid, a name, or wnid<tab>name",
    )
    num_classes: int = Field(1000, ge=1, le=1_000_000, description="outputs of the teacher; ids are 0 to one less")
    split: str | None = Field(None, description="import only this split; default: all")
    transposed: bool = Field(False, description="the files have x before y; see docs/import-export.md")
    scores_are_logits: bool = Field(False, description="take scores for logits that look like probabilities")
    input_size: InputSize = Field(475, description="pixels, or height x width, to which the teacher's images were put")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    shard_size: int = Field(2048, ge=1, le=100_000, description="images in a shard; a killed run resumes at a shard")
    workers: int = Field(0, ge=0, le=256, description="threads that read files; 0 means one a core")


class ExportLabelMapsParameters(FlowParameters):
    """Export label maps in the layout of ReLabel's authors: a .pt file for each image, in the tree of the images."""

    store: Location = Field(description="folder or URL of the store that holds the table")
    table: TableName = Field(description="dataset.table of label maps, such as imagenet.label_maps")
    out: LocalPath = Field(description="folder for the .pt files; made when it does not exist")
    version: int | None = Field(None, ge=1, description="version of the table; default: the latest")
    split: str | None = Field(None, description="export only this split; default: all")
    transposed: bool = Field(False, description="write x before y; see docs/import-export.md")
    replace: bool = Field(False, description="replace files that are there with another content")
    workers: int = Field(0, ge=0, le=256, description="threads that write files; 0 means one a core")


class DemoParameters(FlowParameters):
    """Build a small dataset of real photos, relabel it and show what a label map tells."""

    out: LocalPath = Field("demo", description="folder for the photos, the store and the page")
