"""How the command line writes tables, sizes and progress."""

from __future__ import annotations

import csv
import json
import logging
import math
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TextIO

from labelmill.schemas.outcomes import Outcome
from labelmill.tasks.progress import Progress
from labelmill.tasks.wording import describe_outcome, describe_progress

LINE_EVERY_S = 5.0
"""Where the line cannot move (a log, a pipe), progress is a new line this often."""


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns; a column of numbers is aligned to the right."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    right = [all(row[at].replace(",", "").isdigit() for row in rows) for at in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write_csv(names: Sequence[str], rows: Iterable[Sequence[object]], stream: TextIO) -> None:
    """Write a header and rows; NULL is an empty cell, a list or struct is JSON."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)


def _csv_cell(value: object) -> object:
    if isinstance(value, bool | dict | list | tuple | bytes):
        value = _plain(value)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value


def write_json(names: Sequence[str], rows: Iterable[Sequence[object]], stream: TextIO) -> None:
    """Write a list of objects, one a line; NaN and infinities, which JSON has not, are null.

    Of columns with equal names the later ones get a number.
    """
    keys = _distinct(names)
    stream.write("[")
    for number, row in enumerate(rows):
        record = {key: _plain(value) for key, value in zip(keys, row, strict=True)}
        stream.write((",\n" if number else "\n") + json.dumps(record, ensure_ascii=False, allow_nan=False))
    stream.write("\n]\n")


def _plain(value: object) -> object:
    """Return what JSON can hold: dates, times and ids as text, bytes as hexadecimal."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else str(value)


def _distinct(names: Sequence[str]) -> list[str]:
    keys: list[str] = []
    for name in names:
        key, number = name, 0
        while key in keys:
            number += 1
            key = f"{name}_{number}"
        keys.append(key)
    return keys


def format_outcome(outcome: Outcome) -> str:
    """Return the table that ends a run."""
    lines = describe_outcome(outcome)
    width = max(len(name) for name, _ in lines)
    last = [] if outcome.verdict is None else [outcome.verdict]
    return "\n".join([outcome.title, *(f"  {name.ljust(width)}  {value}" for name, value in lines), *last])


class ProgressLine(logging.Handler):
    """Shows records of `labelmill.progress` on standard error: one moving line, or a line now and then in a log."""

    def __init__(self) -> None:
        super().__init__()
        self._moving = sys.stderr.isatty()
        self._last = 0.0
        self._drawn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Draw the progress that a record carries."""
        progress = getattr(record, "progress", None)
        if not isinstance(progress, Progress) or not progress.total:
            return
        finished = progress.done + progress.reused >= progress.total
        if self._moving:
            print(f"\r\x1b[2K{describe_progress(progress)}", end="\n" if finished else "", file=sys.stderr, flush=True)
            self._drawn = not finished
        elif finished or progress.elapsed_s - self._last >= LINE_EVERY_S:
            self._last = progress.elapsed_s
            print(describe_progress(progress), file=sys.stderr, flush=True)

    def end_line(self) -> None:
        """Leave a line that was still moving, so that what comes next starts on its own."""
        if self._drawn:
            print(file=sys.stderr)
            self._drawn = False
