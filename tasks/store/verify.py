"""Check that a version is what it says: files, sizes, checksums, rows, schema."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from labelmill.schemas.versions import Column, Part, Version
from labelmill.tasks.store.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What was checked, and every problem found, one line each."""

    version: Version
    parts: int
    bytes: int
    problems: tuple[str, ...]


def verify_version(table: Table, number: int | None = None) -> Verification:
    """Check all parts of a version, the latest by default; raise as `Table.version` when the version is unreadable."""
    version = table.version(number)
    problems: list[str] = []
    size = 0
    for part in version.parts:
        problems += _part_problems(table, part, version.columns)
        size += part.bytes
    listed = sum(part.rows for part in version.parts)
    if listed != version.rows:
        problems.append(f"version says {version.rows} rows, its parts {listed}")
    return Verification(version=version, parts=len(version.parts), bytes=size, problems=tuple(problems))


def _part_problems(table: Table, part: Part, columns: tuple[Column, ...]) -> list[str]:
    try:
        found_file = table.files.info(part.path)
        if found_file is None:
            return [f"{part.path}: missing"]
        if found_file.size != part.bytes:
            return [f"{part.path}: expected {part.bytes} bytes, found {found_file.size}"]
        if table.files.hash(part.path) != part.sha256:
            return [f"{part.path}: content differs from its sha256 (a changed byte)"]
        with table.files.open(part.path) as stream:
            footer = pq.read_metadata(stream)
    except (OSError, pa.ArrowInvalid) as error:
        return [f"{part.path}: unreadable: {error}"]
    problems = []
    if footer.num_rows != part.rows:
        problems.append(f"{part.path}: expected {part.rows} rows, found {footer.num_rows}")
    found = tuple(Column(name=f.name, type=str(f.type)) for f in footer.schema.to_arrow_schema())
    if found != columns:
        problems.append(f"{part.path}: columns differ from the version's")
    return problems
