"""The label maps table: one row for every image, with its sparse map of a teacher's logits."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput

ABSENT_FINENESS: Final = 10
"""Absent means are stored so many times finer than logits, whose rounding pooling averages over cells."""


def _list_of(kind: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", kind, nullable=False))  # named as Parquet names it, so that it reads back equal


LABEL_MAPS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("label", pa.int32()),  # the image's label as a class id of the teacher; null when not matched
        pa.field("pooled_class", pa.int32()),  # of the whole image, by the default pooling
        pa.field("pooled_prob", pa.float32()),
        # The map; null for a rejected image. See models/label_encoding.py for what each number means.
        pa.field("classes", _list_of(pa.int32())),  # (N,) ids of the classes that lead cells, those of most first
        pa.field("cells", _list_of(pa.int32())),  # (N,) cells that each of them leads
        pa.field("others", _list_of(pa.int32())),  # (L−N,) ids of the other classes listed: SQL sums need not read them
        pa.field("absent", _list_of(pa.int16())),  # (L,) in steps / ABSENT_FINENESS
        pa.field("index", _list_of(pa.uint16())),  # (H*W*k,) by y, x, rank
        pa.field("top", _list_of(pa.int16())),  # (H*W,) in steps
        pa.field("drops", _list_of(pa.uint16())),  # (H*W*(k-1),) in steps
        pa.field("rest", _list_of(pa.uint16())),  # (H*W,) in steps
    ]
)

MAP_COLUMNS = ("classes", "cells", "others", "absent", "index", "top", "drops", "rest")
"""Columns that hold the encoded map; SQL shows them as label_cells and label_classes."""


class MapReason(StrEnum):
    """Machine-readable reasons of an image whose map was in a file that could not be imported, besides `Reason`."""

    NOT_A_LABEL_MAP = "not_a_label_map"
    WRONG_SHAPE = "wrong_shape"
    SCORE_OUT_OF_RANGE = "score_out_of_range"
    PROBABILITIES = "probabilities"
    ID_NOT_WHOLE = "id_not_whole"
    ID_OUT_OF_RANGE = "id_out_of_range"
    ID_REPEATED = "id_repeated"
    SHARED_FILE = "shared_file"


class LabelMapMetadata(BaseModel):
    """What the numbers of a label maps version mean: grid, classes, quantisation, temperature and teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["label_maps"] = "label_maps"
    grid: tuple[int, int] = Field(description="(H, W): cells down and across")
    axis_order: Literal["y,x,rank"] = "y,x,rank"
    top_k: int
    input_size: tuple[int, int] = Field(description="(height, width) in pixels to which the whole image was resized")
    logit_step: float = Field(description="unit of the stored logits")
    absent_fineness: Literal[10] = Field(ABSENT_FINENESS, description="logit_step over the unit of the absent means")
    num_classes: int
    classes: ClassList | None = Field(description="the teacher's classes; None when they are not known")
    temperature: float = Field(gt=0, description="divides the pooled logits in the default mode")
    absent_share: float = Field(
        ge=0, le=1, description="how much of its absent mean a class counts in the default mode"
    )
    calibration: dict[str, Any] = Field(description="on what the temperature was fitted")
    label_match: dict[str, Any] = Field(description="how the dataset's labels were matched to the teacher's classes")
    teacher: dict[str, Any]
    logits: Literal["centred", "as_imported"] = Field(
        "centred", description="centred: each cell lost the mean outside its top-k; as_imported: as the files had them"
    )
    outside_known: bool = Field(
        True, description="False: what lies outside the top-k is not known, `absent` is 0 and `rest` is empty"
    )

    @classmethod
    def read(cls, name: str, metadata: Mapping[str, Any]) -> Self:
        """Return the metadata of version `name`; raise BadInput when it is not that of label maps as they are now."""
        if metadata.get("kind") != "label_maps":
            raise BadInput(f"{name}: expected a table of label maps")
        try:
            if "absent_fineness" not in metadata:
                raise BadInput(f"{name}: its maps are in the form of an earlier labelmill; relabel to read them")
            return cls.model_validate(metadata)
        except ValidationError as error:
            raise BadInput(
                f"{name}: its maps are in the form of another labelmill: {error.errors()[0]['msg']}"
            ) from error
