"""Progress of long work, told through logging: whoever runs the work decides how to show it."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace

_logger = logging.getLogger("labelmill.progress")

REPORT_EVERY_S = 0.25
"""Often enough for a moving line, rare enough to cost nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a piece of work stands: items of `total` done in this run, reused from an earlier one, rejected."""

    what: str
    total: int
    done: int = 0
    reused: int = 0
    rejected: int = 0
    elapsed_s: float = 0.0

    @property
    def rate(self) -> float:
        """Items done in this run a second."""
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the rest is done at this rate, None while nothing is known."""
        return (self.total - self.done - self.reused) / self.rate if self.rate > 0 else None


class ProgressMeter:
    """Counts from many threads; logs a record with the attribute `progress` a few times a second."""

    def __init__(self, what: str, total: int) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._reported = 0.0
        self._now = self._told = Progress(what=what, total=total)

    def add(self, *, done: int = 0, reused: int = 0, rejected: int = 0) -> None:
        """Count items."""
        with self._lock:
            elapsed = time.monotonic() - self._start
            self._now = replace(
                self._now,
                done=self._now.done + done,
                reused=self._now.reused + reused,
                rejected=self._now.rejected + rejected,
                elapsed_s=elapsed,
            )
            due = elapsed - self._reported >= REPORT_EVERY_S
            if due:
                self._reported = elapsed
        if due:
            self._log()

    def finish(self) -> Progress:
        """Log the final state, unless the last record told it already, and return it."""
        self.add()
        if replace(self._now, elapsed_s=0.0) != replace(self._told, elapsed_s=0.0):
            self._log()
        return self._now

    def _log(self) -> None:
        p = self._told = self._now
        _logger.info(
            "%s: %d of %d, %.1f/s, %d rejected",
            p.what,
            p.done + p.reused,
            p.total,
            p.rate,
            p.rejected,
            extra={"progress": p},
        )
