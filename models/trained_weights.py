"""Files of weights that were trained here: safetensors whose header says what the classifier takes and gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from labelmill.models.preprocessing import Preprocessing
from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput

HEADER = "labelmill.trained"
"""The entry of a file's metadata that holds the facts, as JSON. One entry: several have no fixed order in the file."""

_Deviation = Annotated[FiniteFloat, Field(gt=0)]


class TrainedFacts(BaseModel):
    """What a trained classifier takes and gives, beside its tensors.

    `architecture` is its name as `--teacher` takes it. `input_size` is the (height, width) in pixels that it was
    trained at; `mean` and `std` are of RGB in [0, 1]. `classes` are those of its outputs in order, None where the
    dataset has no list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: Literal[1] = 1
    architecture: str = Field(min_length=1)
    library: str
    input_size: tuple[PositiveInt, PositiveInt]
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[_Deviation, _Deviation, _Deviation]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
    classes: ClassList | None

    def change_preprocessing(self, own: Preprocessing) -> Preprocessing:
        """Return an architecture's own preprocessing with what these facts say in its place."""
        return replace(own, mean=self.mean, std=self.std, interpolation=self.interpolation, native_size=self.input_size)


def encode_trained(model: nn.Module, facts: TrainedFacts) -> bytes:
    """Return a model's tensors and its facts as the bytes of a .safetensors file; the same ones at every call."""
    # copies: tied tensors share memory, which the format refuses
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={HEADER: facts.model_dump_json()})


def read_trained_facts(path: Path) -> TrainedFacts | None:
    """Return what the header of a file says; None for a file that was not trained here, or is no safetensors file.

    Raises BadInput when the header is ours and cannot be read.
    """
    if path.suffix.lower() != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
    except (SafetensorError, OSError):
        return None  # whoever reads its tensors says what is wrong with it
    if header is None:
        return None
    try:
        return TrainedFacts.model_validate_json(header)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise BadInput(
            f"weights {path.name!r}: expected a header {HEADER!r} as this version of labelmill writes it, "
            f"got {where}: {first['msg']}; read it with the version that trained it"
        ) from error
