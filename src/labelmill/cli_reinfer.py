"""`labelmill verify --reinfer`: relabel some images and say how well the stored maps agree."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from labelmill.cli_text import ProgressLine, format_table
from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import check_location
from labelmill.tasks.store import open_store

if TYPE_CHECKING:
    from labelmill.tasks.relabel.reinfer import Reinference

OPTIONS = ("weights", "image_root", "workers")
"""Options of `verify` that mean nothing without --reinfer."""

WORKERS_MAX = 256


def check_options(options: argparse.Namespace) -> None:
    """Raise BadInput, naming the option, for a value that does not fit."""
    given = [f"--{name.replace('_', '-')}" for name in OPTIONS if getattr(options, name) is not None]
    if options.reinfer is None:
        if given:
            raise BadInput(f"{', '.join(given)}: only with --reinfer N")
        return
    if options.reinfer < 1:
        raise BadInput(f"--reinfer: expected 1 image or more, got {options.reinfer}")
    if options.workers is not None and not 0 <= options.workers <= WORKERS_MAX:
        raise BadInput(f"--workers: expected 0 to {WORKERS_MAX}, got {options.workers}")


def reinfer_command(options: argparse.Namespace) -> int:
    """Relabel and print the agreement; exit 1 with one line for each problem."""
    from labelmill.tasks.relabel.reinfer import reinfer_version

    with _progress():
        result = reinfer_version(
            open_store(options.store),
            options.table,
            options.version,
            count=options.reinfer,
            weights=options.weights,
            image_root=check_location(options.image_root) if options.image_root else None,
            workers=options.workers or os.cpu_count() or 1,
        )
    name = f"{options.table} v{result.version.number}"
    print(_describe(name, result))
    for problem in result.problems:
        print(f"{name}: {problem}")
    if result.diagnosis:
        print(f"{name}: {result.diagnosis}")
    if result.problems:
        print(f"{name}: {len(result.problems)} problems in {result.compared} relabelled images", file=sys.stderr)
        return 1
    print(f"{name}: agrees with its teacher")
    return 0


def _describe(name: str, result: Reinference) -> str:
    lines = [
        f"{name}: {result.compared:,} of {result.done:,} maps made again by {result.teacher} ({result.precision}), "
        f"{result.same_bytes:,} the same to the byte"
    ]
    if result.left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(result.left_out.items()))
        lines.append(f"{name}: {sum(result.left_out.values()):,} of {result.drawn:,} images left out: {reasons}")
    if result.notes:
        lines.append(f"{name}: made with {'; '.join(result.notes)}")
    if result.figures:
        rows = [(f.measure, f.sample, f.worst, f.expected) for f in result.figures]
        table = format_table(("agreement", "sample", "worst image", "expected"), rows)
        lines += [f"  {line}" for line in table.splitlines()]
    return "\n".join(lines)


@contextmanager
def _progress() -> Iterator[None]:
    line, progress = ProgressLine(), logging.getLogger("labelmill.progress")
    progress.addHandler(line)
    progress.setLevel(logging.INFO)
    progress.propagate = False
    try:
        yield
    finally:
        progress.removeHandler(line)
        line.end_line()
