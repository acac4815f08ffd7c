"""What each threshold would yield of stored pseudo labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import PseudoReportParameters
from labelmill.schemas.selection import REPORT_SCHEMA, parse_thresholds
from labelmill.schemas.versions import Version
from labelmill.tasks.selection.preflight import find_labels
from labelmill.tasks.splits.images import commit_rows
from labelmill.tasks.store import Store, open_store
from labelmill.tasks.store.views import name_view

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdReport:
    """A version of the report and its rows; `images` had a prediction, `rejected` had none, by reason."""

    version: Version
    labels: Version
    rows: tuple[dict[str, Any], ...]
    images: int
    rejected: dict[str, int]

    @property
    def totals(self) -> list[dict[str, Any]]:
        """The rows of all classes together, by threshold."""
        return [row for row in self.rows if row["class_id"] is None]


def report_thresholds(parameters: PseudoReportParameters) -> ThresholdReport:
    """Count images, known labels and right ones by class at each threshold, and commit the table.

    Raises BadInput when there is no prediction, NotInStore when the table or version does not exist.
    """
    store = open_store(parameters.store)
    labels = find_labels(store, parameters)
    classes = read_classes(labels.metadata)
    thresholds = parse_thresholds(parameters.thresholds)
    counts, rejected = _count(store, labels, parameters.split, thresholds, classes)
    images = int(counts[0, :, 0].sum()) if len(counts) else 0
    if not images:
        raise BadInput(
            f"{labels.table} v{labels.number}: no prediction"
            + ("" if parameters.split is None else f" in split {parameters.split!r}; name another by split")
        )
    rows = build_report(thresholds, counts[1:], counts[0, :, 0], classes)
    version = commit_rows(
        store.table(f"{parameters.dataset}.{parameters.table}"),
        pa.Table.from_pylist(rows, schema=REPORT_SCHEMA),
        metadata={
            "kind": "pseudo_label_report",
            "split": parameters.split,
            "labels": f"{labels.table} v{labels.number}",
            "classes": classes.model_dump(mode="json") if classes else None,
        },
        flow="pseudo-report",
        parameters=parameters,
        inputs={labels.table: labels.number},
    )
    return ThresholdReport(version=version, labels=labels, rows=tuple(rows), images=images, rejected=rejected)


def _count(
    store: Store, labels: Version, split: str | None, thresholds: Sequence[float], classes: ClassList | None
) -> tuple[_Counts, dict[str, int]]:
    """Return the counts (1 + thresholds, classes, 3) int64, and the images without a prediction by reason.

    Counted are images, known labels and right ones: first of all predictions, then from each threshold on.
    """
    usable = "status = 'done' AND pseudo_class IS NOT NULL AND coalesce(isfinite(confidence), false)"
    passed = " + ".join(f"(confidence >= {threshold!r}::FLOAT)::INTEGER" for threshold in thresholds)
    where = f"FROM {name_view(labels)} WHERE ($split IS NULL OR split = $split)"
    with store.connect() as sql:
        found = sql.execute(
            f"SELECT {passed} AS passed, pseudo_class, count(*), count(label), "
            f"count(*) FILTER (label = pseudo_class) {where} AND {usable} GROUP BY ALL",
            {"split": split},
        ).fetchall()
        others = sql.execute(
            "SELECT CASE WHEN status = 'done' THEN 'no_prediction' ELSE coalesce(reason, status) END AS why, "
            f"count(*) {where} AND NOT ({usable}) GROUP BY why ORDER BY why",
            {"split": split},
        ).fetchall()
    size = max([len(classes) if classes else 0, *(row[1] + 1 for row in found)])
    counts = np.zeros((len(thresholds) + 1, size, 3), dtype=np.int64)
    for number, class_id, *three in found:
        counts[: number + 1, class_id] += three
    return counts, dict(others)


def build_report(
    thresholds: Sequence[float], counts: _Counts, images: _Counts, classes: ClassList | None
) -> list[dict[str, Any]]:
    """Return the rows of REPORT_SCHEMA: for each threshold one of all classes, then one of each class.

    `counts` is (thresholds, classes, 3): images, known and right ones; `images` (classes,) those with a prediction.
    """
    rows = []
    for threshold, of_classes in zip(thresholds, counts, strict=True):
        sizes = of_classes[:, 0]
        rows.append(
            {
                **_describe(threshold, of_classes.sum(0), int(images.sum())),
                "class_id": None,
                "class_name": None,
                "classes": int((sizes > 0).sum()),
                "balance": measure_balance(sizes),
                "largest": int(sizes.max()),
                "smallest": int(sizes.min()),
            }
        )
        for class_id, three in enumerate(of_classes):
            name = classes.classes[class_id].name if classes and class_id < len(classes) else None
            rows.append(
                {**_describe(threshold, three, int(images[class_id])), "class_id": class_id, "class_name": name}
            )
    return rows


def _describe(threshold: float, three: _Counts, images: int) -> dict[str, Any]:
    chosen, known, right = (int(n) for n in three)
    return {
        "threshold": threshold,
        "images": chosen,
        "share": chosen / images if images else None,
        "known": known,
        "right": right,
        "precision": right / known if known else None,
    }


def measure_balance(sizes: _Counts) -> float | None:
    """Return the entropy of the shares of (classes,) over its highest value, ln of their number.

    1 is even, 0 all in one class; None without images, or with less than two classes.
    """
    if len(sizes) < 2 or not sizes.sum():
        return None
    shares = sizes[sizes > 0] / sizes.sum()
    return max(0.0, float(-(shares * np.log(shares)).sum()) / math.log(len(sizes)))
