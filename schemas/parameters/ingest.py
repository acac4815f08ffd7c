"""Parameters of the flows that bring images in."""

from __future__ import annotations

from pydantic import Field

from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import (
    FILE_BYTES_MAX,
    PIXELS_MAX,
    SPLIT_PATTERN,
    FlowParameters,
    LocalPath,
    Location,
)


class IngestSettings(FlowParameters):
    """What every ingest takes, wherever its images come from."""

    store: Location = Field(
        description="folder of the store, or s3://bucket/prefix or gs://bucket/prefix; made when it does not exist"
    )
    dataset: DatasetName = Field(description="name of the dataset in the store")
    split: str = Field("train", pattern=SPLIT_PATTERN, description="name of this part of the dataset: train, val, …")
    id_prefix: str = Field(
        "", description="put before every image_id, for two splits that hold the same paths; for example val/"
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="files read at once; 0 means four for each core, for many files of this machine one for each core",
    )
    chunk_size: int = Field(
        50_000, ge=1, le=1_000_000, description="files in a part; a killed ingest resumes at a part"
    )
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="reject images with more pixels than this")
    max_bytes: int = Field(FILE_BYTES_MAX, ge=1, description="reject files larger than this, in bytes")
    rehash: bool = Field(False, description="read every file again, also those whose size and time are unchanged")


class IngestParameters(IngestSettings):
    """What an ingest of one folder, archive or place in a bucket takes."""

    source: Location = Field(description="folder with the images, or s3://bucket/prefix or gs://bucket/prefix")


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
    real: LocalPath | None = Field(
        None,
        description="real.json of ReaL: all classes of each validation image, into the column labels; needs the devkit",
    )
