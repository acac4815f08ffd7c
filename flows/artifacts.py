"""What operators see of a run in Prefect: its progress while it works, and a table of what came of it."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from labelmill.schemas.outcomes import Outcome
from labelmill.tasks.progress import Progress
from labelmill.tasks.wording import describe_outcome, describe_progress

UPDATE_EVERY_S = 10.0
"""An update is a request to Prefect's server and a row of its log."""

_NO_KEY = re.compile(r"[^a-z0-9]+")


class _RunProgress(logging.Handler):
    """Turns the records of `labelmill.progress` into lines of the run's log and the bar of a progress artifact."""

    def __init__(self) -> None:
        super().__init__()
        self._logger = get_run_logger()
        self._run = copy_context()  # engines report from threads of theirs, which know of no run
        self._last: dict[str, float] = {}
        self._bars: dict[str, UUID] = {}
        self._one_at_a_time = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the progress that a record carries, now and then and at the end."""
        progress = getattr(record, "progress", None)
        if not isinstance(progress, Progress) or not progress.total:
            return
        with self._one_at_a_time:
            now, finished = time.monotonic(), progress.done + progress.reused >= progress.total
            if not finished and now - self._last.get(progress.what, -UPDATE_EVERY_S) < UPDATE_EVERY_S:
                return
            self._last[progress.what] = now
        self._logger.info("%s", describe_progress(progress))
        self._run.copy().run(self._draw, progress)

    def _draw(self, progress: Progress) -> None:
        percent = 100 * (progress.done + progress.reused) / progress.total
        said = describe_progress(progress)
        try:
            if progress.what in self._bars:
                update_progress_artifact(self._bars[progress.what], percent, description=said)
            else:
                made = create_progress_artifact(percent, key=_key("progress", progress.what), description=said)
                assert isinstance(made, UUID)  # noqa: S101 - outside of an event loop it is no coroutine
                self._bars[progress.what] = made
        except Exception as error:  # noqa: BLE001 - whatever ails the server, the work goes on
            self._logger.warning("no progress bar: %s", error)


@contextmanager
def show_progress() -> Iterator[None]:
    """Tell a deployment's run of its progress while the block runs; elsewhere the command line shows it."""
    if deployment.id is None:
        yield
        return
    handler = _RunProgress()
    logger = logging.getLogger("labelmill.progress")
    logger.addHandler(handler)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the worker's own log would take every record
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def publish_outcome(outcome: Outcome) -> None:
    """Leave the outcome as a table and as a page of text in Prefect, keyed by the table that was made, if any."""
    rows = [(name.strip(), value) for name, value in describe_outcome(outcome)]
    if outcome.verdict is not None:
        rows.append(("verdict", outcome.verdict))
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    about = outcome.table or outcome.title
    text = "\n".join([f"## {outcome.title}", "", "| | |", "|---|---|", *lines])
    try:
        create_table_artifact(
            [{"": name, "value": value} for name, value in rows], key=_key(about), description=outcome.title
        )
        create_markdown_artifact(text, key=_key(about, "report"), description=outcome.title)
    except Exception as error:  # noqa: BLE001 - the work is done and committed, whatever ails the server
        get_run_logger().warning("the outcome could not be shown: %s", error)


def _key(*words: str) -> str:
    """Return a key as Prefect takes it: small letters, digits and dashes."""
    return "-".join(_NO_KEY.sub("-", word.lower()).strip("-") for word in words)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
