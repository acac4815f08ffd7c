"""How tables are written as Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Choices that make a table small, or fast to write: zstd level, and how columns (as Parquet paths) are stored.

    `byte_streams` are split into streams of bytes, `plain` ones get no dictionary, since their values all differ.
    """

    level: int = 6
    byte_streams: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


def write_parquet(path: Path, rows: pa.Table, layout: Layout) -> None:
    """Write `rows` as one Parquet file; equal rows give equal bytes with the same pyarrow."""
    columns = {field.name for field in rows.schema}
    streams = {name.partition(".")[0] for name in layout.byte_streams}
    pq.write_table(
        rows,
        path,
        compression="zstd",
        compression_level=layout.level,
        use_dictionary=sorted(columns - streams - set(layout.plain)) or False,
        column_encoding=dict.fromkeys(layout.byte_streams, "BYTE_STREAM_SPLIT") or None,
        store_schema=True,
    )
