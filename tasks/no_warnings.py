"""Silence warnings, such as those of Pillow, in the thread that asks and nowhere else."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast


class _QuietThread(threading.local):
    """Stands where a warning filter has its module pattern: it matches in threads that asked for silence."""

    depth = 0

    def match(self, module: str) -> bool:
        return self.depth > 0


_quiet = _QuietThread()
_FILTER = ("ignore", None, Warning, _quiet, 0)
_placing = threading.Lock()


def _is_placed() -> bool:
    first: Any = warnings.filters[0] if warnings.filters else None
    return first is _FILTER


def _place_filter() -> None:
    with _placing:
        filters = cast("list[Any]", warnings.filters)
        filters[:] = [_FILTER, *(f for f in filters if f is not _FILTER)]


@contextmanager
def no_warnings() -> Iterator[None]:
    """Ignore every warning that this thread emits inside the block, whatever the process does with warnings.

    `warnings.catch_warnings` swaps the filters of the whole process, so two threads that leave it out of order keep
    the wrong ones; and where warnings are errors, Pillow would refuse files that it reads elsewhere.
    """
    if not _is_placed():
        _place_filter()
    _quiet.depth += 1
    try:
        yield
    finally:
        _quiet.depth -= 1
