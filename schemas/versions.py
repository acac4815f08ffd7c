"""A version of a table: the JSON file that makes a list of immutable parts visible, and says what made them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Operation = Literal["append", "replace"]


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_json(value: object) -> str:
    """Return the hex sha256 of `value` as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Record):
    """An immutable Parquet file of a table; `path` is relative to the table's folder."""

    path: str
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str


class Column(_Record):
    """Name and Arrow type of a column, as text."""

    name: str
    type: str


class Lineage(_Record):
    """What made a version. Holds no secrets: parameters are those of the flow, which take none."""

    code: str  # labelmill's version, and the commit when it runs from a checkout
    flow: str
    parameters: dict[str, Any]
    parameters_digest: str
    inputs: dict[str, int]  # table name to version
    teacher: dict[str, Any] | None = None  # name, weights digest, head, preprocessing, numerics
    software: dict[str, str] = {}  # package to version
    time: str  # ISO 8601, UTC
    host: str


class Version(_Record):
    """One version of a table; the file that holds it is written last and never replaced.

    `metadata` belongs to the schema: class list, roots, grid, quantisation. `sha256` is that of the other fields.
    """

    format: Literal[1] = 1
    table: str
    number: int = Field(ge=1)
    parent: int | None
    operation: Operation
    rows: int = Field(ge=0)
    columns: tuple[Column, ...]
    metadata: dict[str, Any]
    parts: tuple[Part, ...]
    lineage: Lineage
    sha256: str = ""

    def digest(self) -> str:
        """Return the hex sha256 that an undamaged version carries."""
        return digest_json(self.model_dump(mode="json", exclude={"sha256"}))
