"""A GPU for one run alone, on a machine where several runs start: whoever holds its lock has it.

The lock is the kernel's and ends with the process, however that ends: no lease is left over after a crash.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from labelmill.tasks.stop import check_stop

LOOK_EVERY_S = 1.0

_held: dict[str, int] = {}


def lease_gpu(names: Sequence[str]) -> int:
    """Return the place in `names` of a GPU that no other process holds, and hold it until this process ends.

    `names` are what the machine's GPUs are called in all its processes, their UUIDs. Waits while all are held. A
    process that holds one gets the same again. Raises WorkFailed when asked to stop meanwhile.
    """
    while True:
        for place, name in enumerate(names):
            if name in _held:
                return place
        for place, name in enumerate(names):
            handle = _try_to_lock(name)
            if handle is not None:
                _held[name] = handle
                return place
        check_stop()
        time.sleep(LOOK_EVERY_S)


def _try_to_lock(name: str) -> int | None:
    path = Path(tempfile.gettempdir()) / f"labelmill-{name}.lock"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user's too: a lock needs no right to write
    except FileNotFoundError:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.fchmod(handle, 0o644)  # whatever the umask: another user's run must open it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    with suppress(PermissionError):  # another user's file
        os.utime(path)  # services that clean folders of temporary files take those of more than ten days ago
    return handle
