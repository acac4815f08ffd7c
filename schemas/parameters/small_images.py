"""Parameters of the ingests of CIFAR and SVHN."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from labelmill.schemas.parameters.fields import SPLIT_PATTERN, LocalPath
from labelmill.schemas.parameters.ingest import IngestParameters


class IngestCifarParameters(IngestParameters):
    """Ingest CIFAR-10 or CIFAR-100 in their binary or python version; the pixels stay where they are."""

    source: LocalPath = Field(
        description="folder with data_batch_1.bin … (or train.bin, or the python version's files), or a tar of it"
    )
    split: str = Field("auto", pattern=SPLIT_PATTERN, description="train or test alone; auto: both")
    labels: Literal["fine", "coarse"] = Field("fine", description="of CIFAR-100: its 100 classes, or their 20 groups")


class IngestSvhnParameters(IngestParameters):
    """Ingest SVHN's cropped digits: train_32x32.mat and its kin, whose images are written out as PNG files."""

    source: LocalPath = Field(description="train_32x32.mat, test_32x32.mat or extra_32x32.mat, or a folder of them")
    split: str = Field(
        "auto", pattern=SPLIT_PATTERN, description="train, test or extra alone; auto: all that are there"
    )
    out: LocalPath = Field(description="folder for the PNG files; made when it does not exist")
