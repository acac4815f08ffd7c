"""Flows that review labels: the queue of what a teacher contradicts, and the verdicts that come back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from labelmill.flows.definition import define_flow
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import DisagreementsParameters, VerdictsParameters
from labelmill.tasks.store import open_store

if TYPE_CHECKING:
    from labelmill.tasks.selection.disagreements import Queue


@define_flow("disagreements", DisagreementsParameters, run_name="disagreements {dataset}")
def disagreements(parameters: DisagreementsParameters) -> Outcome:
    """List images whose label a teacher confidently contradicts, for people to judge: a table, a page and a CSV."""
    from labelmill.tasks.selection.disagreements import queue_disagreements

    started = time.monotonic()
    queue = queue_disagreements(parameters)
    page, table = _write_files(parameters, queue)
    queued = queue.rows.num_rows
    images = queued + sum(queue.others.values())
    return Outcome(
        title=f"doubted labels of {parameters.dataset}", table=queue.version.table, version=queue.version.number,
        images=images, done=queued, rejected=queue.others, seconds=time.monotonic() - started, worked=images,
        facts={"page": page, "for the verdicts": table},
    )  # fmt: skip


def _write_files(parameters: DisagreementsParameters, queue: Queue) -> tuple[str, str]:
    """Write page and CSV; return where they are."""
    from labelmill.tasks.selection.disagreements import write_queue
    from labelmill.tasks.selection.queue_page import build_queue_page
    from labelmill.tasks.store.files import replace_file

    store = open_store(parameters.store)
    html = build_queue_page(store, queue, shown=parameters.shown, image_root=parameters.image_root)
    page, text = html.encode("utf-8", "backslashreplace"), write_queue(queue).encode()
    if parameters.report:
        beside = Path(parameters.report).with_suffix(".csv")
        replace_file(Path(parameters.report), page)
        replace_file(beside, text)
        return parameters.report, str(beside)
    table = store.table(queue.version.table)
    name = f"reports/v{queue.version.number}"
    table.files.replace(f"{name}.html", page)
    table.files.replace(f"{name}.csv", text)
    return f"{table.folder}/{name}.html", f"{table.folder}/{name}.csv"


@define_flow("verdicts", VerdictsParameters, run_name="verdicts {dataset}")
def verdicts(parameters: VerdictsParameters) -> Outcome:
    """Take back what people decided about images, line by line: a new version of the images table."""
    from labelmill.tasks.selection.verdicts import take_verdicts

    started = time.monotonic()
    made = take_verdicts(parameters)
    decided = sum(made.counts.values())
    facts = {name: f"{count:,}" for name, count in sorted(made.counts.items())}
    if made.verdicts is not None:
        facts["remembered in"] = f"{made.verdicts.table} v{made.verdicts.number}"
    return Outcome(
        title=f"verdicts on {parameters.dataset}", table=made.images.table, version=made.images.number,
        counted="lines", images=decided + made.undecided, done=decided,
        rejected={"undecided": made.undecided} if made.undecided else {}, seconds=time.monotonic() - started,
        worked=decided, facts={**facts, "images with another row": f"{made.rows:,}"},
    )  # fmt: skip
