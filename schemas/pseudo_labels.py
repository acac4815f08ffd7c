"""The pseudo labels table: what teachers say of each image, before any threshold."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from labelmill.schemas.classes import ClassList

PSEUDO_LABELS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("pseudo_class", pa.int32()),  # the likeliest class, an id of metadata["classes"]
        pa.field("confidence", pa.float32()),  # its probability
        pa.field("margin", pa.float32()),  # to the second one
        pa.field("entropy", pa.float32()),  # of the whole distribution, in nats
        pa.field("class_ids", pa.list_(pa.field("element", pa.int32()))),  # the likeliest ones, likeliest first
        pa.field("probabilities", pa.list_(pa.field("element", pa.float32()))),  # theirs; they do not sum to one
        pa.field("label", pa.int32()),  # the image's own, as an id of the same list; null when it has none or no match
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


class PseudoLabelMetadata(BaseModel):
    """What the numbers of a pseudo labels version mean: classes, how many are kept, views and teachers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pseudo_labels"] = "pseudo_labels"
    num_classes: int
    classes: ClassList | None = Field(description="the teachers' classes; None when they are not known")
    top_k: int = Field(description="classes kept of each image")
    views: str = Field(description="over what the probabilities of an image are averaged, besides teachers")
    label_match: dict[str, Any] = Field(description="how the dataset's labels were matched to the teachers' classes")
    teachers: tuple[dict[str, Any], ...] = Field(description="whose probabilities were averaged, all with equal weight")
