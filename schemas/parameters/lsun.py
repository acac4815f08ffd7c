"""Parameters of the ingest of LSUN."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters.fields import SPLIT_PATTERN, LocalPath
from labelmill.schemas.parameters.ingest import IngestParameters

SPLIT_BY_NAME = "auto"
"""The split that stands for: as the source's own names say."""


class IngestLsunParameters(IngestParameters):
    """Ingest LSUN: an LMDB environment, such as bedroom_train_lmdb, or a folder of several; may export the images."""

    source: LocalPath = Field(description="an LMDB environment, such as bedroom_train_lmdb, or a folder of several")
    split: str = Field(
        SPLIT_BY_NAME,
        pattern=SPLIT_PATTERN,
        description="name of this part of the dataset; auto: each environment's own, by its name (train, val, test)",
    )
    digests: Literal["sha256", "none"] = Field(
        "sha256",
        description="sha256: read every value for its size, format and digest; none: list the keys alone, which takes "
        "seconds for millions, and leaves these columns empty",
    )
    export: Literal["none", "copy", "jpeg"] = Field(
        "none",
        description="none: images stay in the LMDB; copy: a file for each, the bytes as they are; jpeg: convert them. "
        "The rows name what was exported",
    )
    out: LocalPath | None = Field(None, description="folder for exported files; made when it does not exist")
    quality: int = Field(92, ge=1, le=100, description="of exported JPEGs")
    short_side: int | None = Field(
        None, ge=1, le=16_384, description="pixels to which the shorter side of larger JPEGs is reduced"
    )

    @model_validator(mode="after")
    def _check_out(self) -> IngestLsunParameters:
        if (self.export == "none") != (self.out is None):
            raise BadInput("out: expected a folder together with export copy or jpeg, and none without")
        if self.rehash and self.digests == "none":
            raise BadInput("rehash: nothing is read with digests none; leave one of them out")
        return self
