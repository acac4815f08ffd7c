"""What the fields of parameters are made of: checked paths, locations, sizes and devices."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import check_location
from labelmill.schemas.names import split_table_name

PIXELS_MAX = 178_956_970
"""Pillow's own bound on an image's area, in pixels: about 512 MiB of RGB."""

FILE_BYTES_MAX = 256 * 2**20
"""No photograph is larger; a larger file in an image folder is something else."""

SPLIT_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"

TABLE_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
"""Of a table's name in its dataset."""

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


def make_weights_absolute(weights: str) -> str:
    """Keep a path of weights good for whoever reads the lineage in another folder, or runs the flow there."""
    if not weights or weights == "pretrained" or weights.startswith("package:"):
        return weights
    return str(Path(weights).expanduser().absolute())


def check_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return what refuses a text that `parse` does, with its words, and leaves any other as it is."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


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


# The patterns are for Prefect's form alone: a run that is scheduled does not know the folder that it was asked from.
LocalPath = Annotated[str, AfterValidator(_check_local), WithJsonSchema({"type": "string", "pattern": "^(/|file://)"})]
Location = Annotated[
    str, AfterValidator(_check_location), WithJsonSchema({"type": "string", "pattern": r"^(/|\w+://)"})
]
WeightsName = Annotated[
    str,
    AfterValidator(make_weights_absolute),
    WithJsonSchema({"type": "string", "pattern": "^(/|package:|pretrained$)"}),
]
Device = Annotated[str, check_by(parse_device)]
Share = Annotated[str, check_by(parse_share)]
InputSize = Annotated[int | str, BeforeValidator(_check_input_size)]
TableName = Annotated[str, check_by(split_table_name)]


class FlowParameters(BaseModel):
    """Base of all parameters: unknown names are refused, values never change."""

    # A refused URL may hold a password: errors do not repeat what was given.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
