"""Threads whose work ends with the block that asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def open_threads(count: int, *, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield `count` threads; at the end of the block, also by an error, what they have not begun is dropped.

    The executor's own `with` does all of it first: a run that was asked to stop would go on to its last image.
    """
    threads = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)
