"""Names of datasets and tables, checked where they enter."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from labelmill.schemas.errors import BadInput

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAKEN_BY_SQL = frozenset({"main", "temp", "system", "memory", "information_schema", "pg_catalog"})


def check_dataset_name(name: str) -> str:
    """Return `name`, which becomes a folder and an SQL schema; raise BadInput when it cannot."""
    if not _NAME.fullmatch(name) or name in _TAKEN_BY_SQL:
        raise BadInput(
            f"dataset name {name!r}: expected a lower-case letter, then at most 62 letters, digits or '_', "
            f"and none of {', '.join(sorted(_TAKEN_BY_SQL))}"
        )
    return name


def split_table_name(table: str) -> tuple[str, str]:
    """Split `dataset.table` into its two names; raise BadInput when it is not of that form."""
    dataset, dot, name = table.partition(".")
    if not dot or not _NAME.fullmatch(name):
        raise BadInput(f"table name {table!r}: expected dataset.table, for example imagenet.label_maps")
    return check_dataset_name(dataset), name


DatasetName = Annotated[str, AfterValidator(check_dataset_name)]
