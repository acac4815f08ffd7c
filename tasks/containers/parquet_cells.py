"""Binary values of a Parquet file, read by row."""

from __future__ import annotations

import bisect
import os
import threading
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.schemas.images import Reason
from labelmill.tasks.images.rejected_image import RejectedImage

_here = threading.local()
"""The row group that each thread read last: rows are asked for in order, or nearly."""


@dataclass(slots=True)
class _RowGroup:
    """A row group's values of one column; `first` is the number of its first row in the file."""

    key: tuple[str, int, int, str]
    first: int
    starts: list[int] = field(default_factory=list)
    number: int = -1
    values: pa.ChunkedArray | None = None


def read_parquet_cell(path: str, row: int, column: str) -> bytes:
    """Return a binary value of a Parquet file by its row, counted from 0, and its column, such as `image.bytes`.

    Raises RejectedImage: missing, unreadable, or corrupt when there is no such row or column.
    """
    try:
        found = os.stat(path)
        key = (path, found.st_mtime_ns, found.st_ino, column)
        group = getattr(_here, "group", None)
        if group is None or group.key != key:
            group = _here.group = _RowGroup(key=key, first=0)
        return _read(group, path, row, column)
    except FileNotFoundError as error:
        raise RejectedImage(Reason.MISSING, error.strerror or str(error)) from error
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RejectedImage(Reason.UNREADABLE, f"Parquet: {str(error).splitlines()[0]}") from error


def _read(group: _RowGroup, path: str, row: int, column: str) -> bytes:
    if group.values is None or not 0 <= row - group.first < len(group.values):
        with pq.ParquetFile(path) as file:
            if not group.starts:
                sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
                group.starts = [sum(sizes[:n]) for n in range(len(sizes) + 1)]
            number = bisect.bisect_right(group.starts, row) - 1
            if not 0 <= number < len(group.starts) - 1:
                raise RejectedImage(Reason.MISSING, f"row {row} is not in the Parquet file")
            top, *inner = column.split(".")
            values = file.read_row_group(number, columns=[column])[top]
            for name in inner:
                values = pc.struct_field(values, name)
            group.first, group.values = group.starts[number], values
    value = group.values[row - group.first].as_py()
    if not isinstance(value, bytes):
        raise RejectedImage(Reason.CORRUPT, f"expected bytes in column {column}, got {type(value).__name__}")
    return value
