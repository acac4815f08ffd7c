"""Processes that Ctrl-C does not end: it reaches the whole group, and their parent decides what it means."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def shielded_from_interrupts() -> Iterator[None]:
    """Let the processes that this thread starts in the block take no SIGINT, from their first instruction on.

    One that ignores it by its own code does so only after its imports, which may take ten seconds.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, whose processes are not started with a mask
        yield
        return
    resource_tracker.ensure_running()  # started with the first process otherwise, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
