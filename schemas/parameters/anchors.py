"""Parameters of the flow that clusters boxes into anchors."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from labelmill.schemas.anchors import Resize
from labelmill.schemas.errors import BadInput
from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import FlowParameters, InputSize, LocalPath, Location, check_by

ANCHORS_MAX = 256

_SWEEP = re.compile(r"(\d{1,3}):(\d{1,3})")
_PAIR = re.compile(r"(\d+(?:\.\d+)?),\s*(\d+(?:\.\d+)?)")


def parse_sweep(text: str) -> tuple[int, ...]:
    """Return (1, …, 15) of `1:15`; raise BadInput for anything else."""
    match = _SWEEP.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= ANCHORS_MAX:
        raise BadInput(f"{text!r}: expected the first and the last number of anchors, at most {ANCHORS_MAX}: 1:15")
    return tuple(range(int(match[1]), int(match[2]) + 1))


def parse_strides(text: str) -> tuple[int, ...]:
    """Return (8, 16, 32) of `8,16,32`, ascending; raise BadInput for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,3}", part) for part in parts) or len(set(map(int, parts))) < len(parts):
        raise BadInput(f"{text!r}: expected strides in pixels, each once: 8,16,32")
    return tuple(sorted(map(int, parts)))


def parse_sizes(text: str) -> tuple[tuple[float, float], ...]:
    """Return ((10, 13), (16, 30)) of `10,13 16,30`; raise BadInput for anything else."""
    sizes = tuple((float(match[1]), float(match[2])) for match in _PAIR.finditer(text))
    rest = _PAIR.sub("", text).replace(",", " ").split()
    if rest or not sizes or len(sizes) > ANCHORS_MAX or min(map(min, sizes)) <= 0 or max(map(max, sizes)) > 1e6:
        raise BadInput(f"{text!r}: expected widths and heights in pixels of the input, above 0: 10,13 16,30 33,23")
    return sizes


class AnchorsParameters(FlowParameters):
    """Cluster a dataset's boxes into anchors by their IoU, and tell how well these fit and what they would learn."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's boxes table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    k: int = Field(9, ge=1, le=ANCHORS_MAX, description="how many anchors")
    sweep: Annotated[str, check_by(parse_sweep)] | None = Field(
        None, description="also all numbers of anchors from the first to the last: 1:15"
    )
    input_size: InputSize = Field(416, description="of the detector: pixels, or height x width such as 384x640")
    resize: Resize = Field("letterbox", description="how images become the input: stretch, or letterbox with bars")
    split: str | None = Field(None, description="boxes of this split alone; default: all")
    classes: str | None = Field(None, min_length=1, description="names or ids with commas between; default: all")
    crowds: bool = Field(False, description="take boxes of crowds too")
    min_side_px: float = Field(0, ge=0, allow_inf_nan=False, description="leave out boxes with a shorter side below")
    max_side_px: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="leave out boxes with a longer side above, in pixels of the input"
    )
    strides: Annotated[str, check_by(parse_strides)] | None = Field(
        None, description="split the anchors over these strides and count what they would learn: 8,16,32"
    )
    compare: Annotated[str, check_by(parse_sizes)] | None = Field(
        None, description="anchors to measure beside, in pixels of the input: 10,13 16,30 33,23"
    )
    positive_iou: float = Field(0.5, gt=0, le=1, description="an anchor learns a box from this IoU on")
    negative_iou: float = Field(0.4, ge=0, le=1, description="an anchor below this IoU learns background")
    positives_images: int = Field(
        1000, ge=0, le=1_000_000, description="images on which to count what anchors would learn; 0: none"
    )
    seed: int = Field(0, ge=0, description="of the starts and of the drawn images")
    boxes_version: int | None = Field(None, ge=1, description="version of the boxes table; default: the latest")
    table: str = Field("anchors", pattern=r"^[a-z][a-z0-9_]{0,50}$", description="name of the table in the dataset")
    report: LocalPath | None = Field(
        None, description="file for the page; default: reports/vN.html in the folder of the table"
    )
