"""What goes with an anchors version: tables of classes and positives, texts for trainers, the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from labelmill.schemas.classes import read_classes
from labelmill.schemas.versions import Version
from labelmill.tasks.anchors.job import AnchorsRun
from labelmill.tasks.anchors.measures import count_by_size, learn_positives, measure_classes
from labelmill.tasks.anchors.page import Rows, as_sizes, build_anchors_page, pick_set
from labelmill.tasks.anchors.texts import write_texts
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.report.put_page import put_page
from labelmill.tasks.splits.images import commit_rows
from labelmill.tasks.stop import check_stop


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorsReport:
    """A version of anchors, and lines about it for people."""

    version: Version
    facts: dict[str, str]


def write_report(run: AnchorsRun, version: Version, *, report: str | None) -> AnchorsReport:
    """Measure the chosen anchors, write the tables, texts and page that go with a version.

    The page goes to `report`, or to `reports/` in the table's folder, where the texts are.
    """
    rows = run.table.read(version, [column.name for column in version.columns]).to_pylist()
    chosen = pick_set(rows, run.parameters.k, "clustered")
    classes = measure_classes(run.boxes, as_sizes(chosen), read_classes(run.version.metadata))
    _commit(run, version, "classes", classes)
    positives = _count_positives(run, rows)
    if positives is not None:
        _commit(run, version, "positives", positives)
    texts = write_texts(
        as_sizes(chosen), [row["stride_px"] for row in chosen], input_size=tuple(version.metadata["input_size"])
    )
    for name, text in texts.items():
        run.table.files.replace(f"reports/v{version.number}.{name}", text.encode())
    page = build_anchors_page(version, rows, run.boxes.sizes, classes=classes, positives=positives, texts=texts)
    place = put_page(page, run.table, version.number, report=report)
    return AnchorsReport(version=version, facts=_list_facts(run, version, rows, positives, place))


def _commit(run: AnchorsRun, version: Version, name: str, rows: pa.Table) -> None:
    table = run.store.table(f"{version.table}_{name}")
    metadata = {"kind": f"anchor_{name}", "anchors_version": version.number, "k": run.parameters.k}
    inputs = {**run.inputs, version.table: version.number}
    commit_rows(table, rows, metadata=metadata, flow="anchors", parameters=run.parameters, inputs=inputs)


def _count_positives(run: AnchorsRun, rows: Rows) -> pa.Table | None:
    if run.parameters.strides is None or not run.parameters.positives_images:
        return None
    sets = {"clustered": pick_set(rows, run.parameters.k, "clustered"), "given": pick_set(rows, None, "given")}
    wanted = {source: as_sizes(found) for source, found in sets.items() if found}
    images = min(run.parameters.positives_images, len(np.unique(run.boxes.images)))
    meter = ProgressMeter("images with anchors", images * len(wanted))

    def step() -> None:
        check_stop()
        meter.add(done=1)

    counted = [
        count_by_size(learn_positives(run.boxes, sizes, run.parameters, on_image=step), source)
        for source, sizes in wanted.items()
    ]
    meter.finish()
    return pa.concat_tables(counted)


def _list_facts(
    run: AnchorsRun,
    version: Version,
    rows: Rows,
    positives: pa.Table | None,
    page: str,
) -> dict[str, str]:
    chosen, given = pick_set(rows, run.parameters.k, "clustered"), pick_set(rows, None, "given")
    facts = {
        "anchors": "  ".join(f"{row['w']:.0f},{row['h']:.0f}" for row in chosen),
        "mean best IoU": f"{chosen[0]['mean_iou']:.4f}",
        "best possible recall": f"{chosen[0]['best_possible_recall']:.4f} at a ratio of 4",
    }
    if given:
        facts["mean best IoU of those given"] = f"{given[0]['mean_iou']:.4f}"
    for row in rows:
        if row["anchor"] == 0 and row["source"] == "clustered" and run.parameters.sweep:
            facts[f"k = {row['k']}"] = f"{row['mean_iou']:.4f}"
    for row in positives.to_pylist() if positives is not None else []:
        if row["source"] == "clustered" and row["rule"] == "iou":
            bound = " px and more" if row["to_px"] is None else f" to {row['to_px']:g} px"
            facts[f"boxes of {row['from_px']:g}{bound}"] = (
                f"{row['positives_a_box']:.2f} anchors a box, {row['without']:,} of {row['boxes']:,} without"
            )
    facts["texts for trainers"] = f"{run.table.folder}/reports/v{version.number}.*"
    facts["report"] = page
    return facts
