"""A flag that asks running work to stop: a signal interrupts no thread, so long loops look here."""

from __future__ import annotations

import threading

from labelmill.schemas.errors import WorkFailed

_asked = threading.Event()


def ask_to_stop() -> None:
    """Ask all work of this process to stop at its next batch."""
    _asked.set()


def check_stop() -> None:
    """Raise WorkFailed when the process was asked to stop."""
    if _asked.is_set():
        raise WorkFailed("stopped on request; what is finished is kept, run the same command to go on")
