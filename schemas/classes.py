"""Class lists: what a class id of a dataset or of a teacher means."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

WNID_PATTERN = re.compile(r"n\d{8}")


class ClassName(BaseModel):
    """One class: its place in a list is its id.

    `wnid` is a WordNet id such as `n01440764`, or None; `name` is for people (synonyms separated by commas).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    wnid: str | None = None


class ClassList(BaseModel):
    """An ordered list of classes; ids are 0…n−1. `source` says where the list comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[ClassName, ...]
    source: str

    def __len__(self) -> int:
        return len(self.classes)

    def digest(self) -> str:
        """Return the hex sha256 of the names and wnids in order (the source does not count)."""
        body = json.dumps([[c.wnid, c.name] for c in self.classes], ensure_ascii=False)
        return hashlib.sha256(body.encode()).hexdigest()


def read_classes(metadata: Mapping[str, Any]) -> ClassList | None:
    """Return the class list in the metadata of a version, None when it has none."""
    listed = metadata.get("classes")
    return ClassList.model_validate(listed) if listed else None
