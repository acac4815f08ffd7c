"""Choosing among pseudo labels: why one is left out, the report over thresholds, the queue of doubts, the verdicts."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput


class LeftOut(StrEnum):
    """Why a manifest leaves out an image that the pseudo labels did not reject themselves."""

    NO_PREDICTION = "no_prediction"
    IRRELEVANT = "irrelevant"
    BELOW_THRESHOLD = "below_threshold"
    OVER_QUOTA = "over_quota"


class SelectionRule(BaseModel):
    """By what a manifest was chosen; None where a step was not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    quota: int | None
    duplicate: bool = Field(description="whether classes below the quota are filled up by copies")
    relevance: str | None = Field(description="table and version by whose classes and confidence the pool was cut")
    relevant_per_class: int | None
    relevant_share: float | None
    targets: Literal["hard", "soft"]
    temperature: float
    split: str | None
    labels: str = Field(description="table and version of the pseudo labels")


class ManifestMetadata(BaseModel):
    """What the numbers of a manifest version mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["manifest"] = "manifest"
    classes: ClassList | None
    rule: SelectionRule


REPORT_SCHEMA = pa.schema(
    [
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("class_id", pa.int32()),  # null for all classes together
        pa.field("class_name", pa.string()),
        pa.field("images", pa.int64(), nullable=False),  # with at least this confidence
        pa.field("share", pa.float64()),  # of all with a prediction, in a class's row of those with its; null of none
        pa.field("known", pa.int64(), nullable=False),  # of `images`, those with a label of their own
        pa.field("right", pa.int64(), nullable=False),  # of `known`, those with the same one
        pa.field("precision", pa.float64()),  # right / known; null without any
        pa.field("classes", pa.int32()),  # that have images; in the rows of all classes, as what follows
        pa.field("balance", pa.float64()),  # entropy of the class shares over ln(classes of the list); 1 is even
        pa.field("largest", pa.int64()),  # images of the largest class
        pa.field("smallest", pa.int64()),  # of the smallest one of the list
    ]
)

DISAGREEMENTS_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),  # from 1, the surest contradiction first
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # the image's own, as an id of the dataset's classes
        pa.field("label_name", pa.string()),
        pa.field("suggested", pa.int32()),  # the teacher's class, as such an id; null where the dataset has none
        pa.field("suggested_name", pa.string()),
        pa.field("confidence", pa.float32(), nullable=False),  # in what is suggested
        pa.field("label_probability", pa.float32(), nullable=False),  # in the label; 0 when it is not among the top k
    ]
)

QUEUE_COLUMNS = (
    "image_id", "split", "label", "label_name", "suggested", "suggested_name", "confidence", "verdict", "queue",
)  # fmt: skip
"""Of the file that goes to people and comes back: `verdict` is theirs, `queue` the version that the line is from."""

VERDICTS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),  # a value of Verdict
        pa.field("label_before", pa.int32(), nullable=False),  # ids of the dataset's classes
        pa.field("label", pa.int32()),  # from now on; null for a dropped image
        pa.field("csv_sha256", pa.string(), nullable=False),  # of the file that said so
        pa.field("queue", pa.int64()),  # version of the queue that it came from, where the line says
    ]
)


class Verdict(StrEnum):
    """What people decided about an image."""

    KEPT = "kept"
    CHANGED = "changed"
    DROPPED = "dropped"


def parse_thresholds(text: str) -> tuple[float, ...]:
    """Return the numbers of `0,0.5,0.9`, ascending and each once; raise BadInput unless all are from 0 to 1."""
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError as error:
        raise BadInput(f"{text!r}: expected numbers with commas between, such as 0.5,0.8,0.95") from error
    if not all(0 <= threshold <= 1 for threshold in found):
        raise BadInput(f"{text!r}: expected thresholds from 0 to 1")
    return tuple(found)
