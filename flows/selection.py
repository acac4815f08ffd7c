"""Flows over stored pseudo labels: choose what to learn from, and tell what thresholds would yield."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from labelmill.flows.definition import define_flow
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import PseudoReportParameters, SelectParameters
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import open_store

if TYPE_CHECKING:
    from labelmill.tasks.selection.job import Selection
    from labelmill.tasks.selection.report import ThresholdReport


@define_flow("select", SelectParameters, run_name="select {dataset} at {threshold}")
def select(parameters: SelectParameters) -> Outcome:
    """Choose what a trainer is to learn from among stored pseudo labels: a manifest, without running a teacher."""
    from labelmill.tasks.selection.job import select_labels
    from labelmill.tasks.selection.preflight import find_labels

    started = time.monotonic()
    meter = ProgressMeter("rows", find_labels(open_store(parameters.store), parameters).rows)

    def on_rows(chosen: int, rejected: int) -> None:
        check_stop()
        meter.add(done=chosen + rejected, rejected=rejected)

    made = select_labels(parameters, on_rows=on_rows)
    meter.finish()
    return Outcome(
        title=f"select {parameters.dataset} at {parameters.threshold:g}", table=made.version.table,
        version=made.version.number, images=made.images, done=made.chosen, rejected=made.rejected,
        seconds=time.monotonic() - started, worked=made.images, facts=_tell_selection(parameters, made),
    )  # fmt: skip


def _tell_selection(parameters: SelectParameters, made: Selection) -> dict[str, str]:
    facts = {"an epoch": f"{made.copies:,} images of {made.classes:,} classes"}
    if parameters.quota is not None:
        filled = ", filled up by copies" if parameters.duplicate else ""
        facts["classes below the quota"] = f"{made.short:,}{filled}"
    if made.known:
        facts["precision of known labels"] = f"{made.right / made.known:.2%} of {made.known:,}"
    return facts


@define_flow("pseudo-report", PseudoReportParameters, run_name="pseudo-report {dataset}")
def pseudo_report(parameters: PseudoReportParameters) -> Outcome:
    """Tell what each threshold would yield: images, balance of the classes, precision where labels are known."""
    from labelmill.tasks.selection.report import report_thresholds

    started = time.monotonic()
    made = report_thresholds(parameters)
    page = _write_page(parameters, made)
    facts = {
        f"τ = {row['threshold']:g}": f"{row['images']:,} images ({row['share']:.1%}), {row['classes']:,} classes"
        + ("" if row["balance"] is None else f", balance {row['balance']:.3f}")
        + ("" if row["precision"] is None else f", precision {row['precision']:.1%} of {row['known']:,}")
        for row in made.totals
    }
    return Outcome(
        title=f"pseudo labels of {parameters.dataset} by threshold", table=made.version.table,
        version=made.version.number, images=made.images + sum(made.rejected.values()), done=made.images,
        rejected=made.rejected, seconds=time.monotonic() - started, worked=made.images,
        facts={**facts, "report": page},
    )  # fmt: skip


def _write_page(parameters: PseudoReportParameters, made: ThresholdReport) -> str:
    from labelmill.tasks.selection.report_page import build_report_page
    from labelmill.tasks.store.files import replace_file

    page = build_report_page(made).encode("utf-8", "backslashreplace")
    if parameters.report:
        replace_file(Path(parameters.report), page)
        return parameters.report
    table = open_store(parameters.store).table(made.version.table)
    table.files.replace(f"reports/v{made.version.number}.html", page)
    return f"{table.folder}/reports/v{made.version.number}.html"
