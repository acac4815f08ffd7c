"""Processes of Prefect on this machine: whether one lives, and its end with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

END_WITHIN_S = 20.0


def command_of(process: int) -> str | None:
    """Return the command of a living process of Prefect, None when there is none of that number."""
    found = subprocess.run(
        ["ps", "-p", str(process), "-o", "stat=,command="], capture_output=True, text=True, check=False
    ).stdout.strip()
    return found if "prefect" in found and not found.startswith("Z") else None


def end_family(process: int) -> None:
    """Ask a process and all that it started to end; after a while make them. Runs have sessions of their own."""
    family = [process, *_descendants(process)]
    deadline = time.monotonic() + END_WITHIN_S
    _signal(family, signal.SIGTERM)
    while time.monotonic() < deadline and any(map(command_of, family)):
        time.sleep(0.1)
    if any(map(command_of, family)):
        _signal(family, signal.SIGKILL)


def _signal(family: list[int], number: signal.Signals) -> None:
    for member in family:
        with suppress(ProcessLookupError):
            os.kill(member, number)


def _descendants(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [process]
    for parent in found:  # it grows while we go through it
        found += [child for child, above in pairs if above == parent]
    return found[1:]
