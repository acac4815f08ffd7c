"""The queue of images whose label a teacher confidently contradicts."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

import pyarrow as pa

from labelmill.models.class_match import match_classes
from labelmill.schemas.classes import read_classes
from labelmill.schemas.parameters import DisagreementsParameters
from labelmill.schemas.selection import DISAGREEMENTS_SCHEMA, QUEUE_COLUMNS, Verdict
from labelmill.schemas.versions import Version
from labelmill.tasks.selection.preflight import find_labels
from labelmill.tasks.splits.images import commit_rows
from labelmill.tasks.store import Store, open_store
from labelmill.tasks.store.connection import StoreConnection
from labelmill.tasks.store.views import name_view


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """A version of the queue with its rows; `others` are the images that are not in it, by reason."""

    version: Version
    labels: Version
    images: Version
    rows: pa.Table
    others: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sides:
    """How the classes of the dataset and of the teacher stand to each other: ids of one for each of the other."""

    teacher_ids: tuple[int | None, ...]
    dataset_ids: tuple[int | None, ...]
    dataset_names: tuple[str, ...]
    teacher_names: tuple[str, ...]


def queue_disagreements(parameters: DisagreementsParameters) -> Queue:
    """Rank the images that are labelled otherwise than a teacher is sure of, and commit the table.

    Labels are those of the images version, also where they have changed since the teacher saw them. First comes what
    exceeds the probability of the label by most; with equals the smaller image_id. Raises NotInStore when a table or
    version does not exist.
    """
    store = open_store(parameters.store)
    labels = find_labels(store, parameters)
    images = store.table(f"{parameters.dataset}.images").version(parameters.images_version)
    sides = _match(images, labels)
    verdicts = None if parameters.again else store.table(f"{parameters.dataset}.verdicts").latest()
    with store.connect(read_only=False) as sql:
        _judge(sql, parameters, labels, images, verdicts, sides)
        rows = _rank(sql, sides, parameters.limit)
        counts = sql.execute("SELECT why, count(*) FROM judged WHERE why IS NOT NULL GROUP BY why ORDER BY why")
        others = Counter(dict(counts.fetchall()))
        queued = sql.execute("SELECT count(*) FROM judged WHERE why IS NULL").fetchall()[0][0]
    if queued > len(rows):
        others["over_limit"] = queued - len(rows)
    inputs = {version.table: version.number for version in (labels, images, verdicts) if version is not None}
    version = commit_rows(
        store.table(f"{parameters.dataset}.{parameters.table}"), rows,
        metadata={
            "kind": "disagreements", "threshold": parameters.threshold, "split": parameters.split,
            "labels": f"{labels.table} v{labels.number}", "images": f"{images.table} v{images.number}",
            "classes": images.metadata["classes"],
        },
        flow="disagreements", parameters=parameters, inputs=inputs,
    )  # fmt: skip
    return Queue(version=version, labels=labels, images=images, rows=rows, others=dict(others))


def _match(images: Version, labels: Version) -> _Sides:
    dataset, teacher = read_classes(images.metadata), read_classes(labels.metadata)
    teacher_ids = match_classes(dataset, teacher).teacher_ids
    counts = Counter(teacher_ids)
    found = {number: place for place, number in enumerate(teacher_ids) if number is not None and counts[number] == 1}
    return _Sides(
        teacher_ids=teacher_ids,
        dataset_ids=tuple(found.get(number) for number in range(len(teacher) if teacher else 0)),
        dataset_names=tuple(c.name for c in dataset.classes) if dataset else (),
        teacher_names=tuple(c.name for c in teacher.classes) if teacher else (),
    )


def _judge(
    sql: StoreConnection,
    parameters: DisagreementsParameters,
    labels: Version,
    images: Version,
    verdicts: Version | None,
    sides: _Sides,
) -> None:
    """Make the table `judged`: an image a row, with the reason `why` it is not in the queue, or null."""
    kept = "SELECT NULL::VARCHAR AS image_id, NULL::INTEGER AS label WHERE false"
    if verdicts is not None:
        kept = (
            f"SELECT image_id, label FROM {name_view(verdicts)} WHERE verdict = '{Verdict.KEPT}' "  # noqa: S608 - a checked name
            "QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY row DESC) = 1"
        )
    sql.execute(
        "CREATE TEMP TABLE judged AS SELECT image_id, split, i.label, pseudo_class, confidence, "  # noqa: S608 - checked names
        "($teacher::INTEGER[])[i.label + 1] AS known, "
        "coalesce(probabilities[list_position(class_ids, known)], 0) AS label_probability, "
        "CASE WHEN p.status <> 'done' THEN coalesce(p.reason, p.status) "
        "WHEN i.status IS DISTINCT FROM 'done' THEN 'not_among_images' "
        "WHEN pseudo_class IS NULL OR NOT coalesce(isfinite(confidence), false) THEN 'no_prediction' "
        "WHEN i.label IS NULL THEN 'no_label' WHEN known IS NULL THEN 'class_unknown_to_teacher' "
        "WHEN known = pseudo_class THEN 'agreed' WHEN confidence < $threshold::FLOAT THEN 'below_threshold' "
        "WHEN k.label = i.label THEN 'kept_by_people' END AS why "
        f"FROM {name_view(labels)} AS p LEFT JOIN {name_view(images)} AS i USING (image_id, split) "
        f"LEFT JOIN ({kept}) AS k USING (image_id) WHERE $split IS NULL OR split = $split",
        {"teacher": list(sides.teacher_ids), "threshold": parameters.threshold, "split": parameters.split},
    )


def _rank(sql: StoreConnection, sides: _Sides, limit: int | None) -> pa.Table:
    rows = sql.execute(
        "SELECT row_number() OVER (ORDER BY confidence - label_probability DESC, image_id) AS rank, image_id, split, "
        "label, ($labels::VARCHAR[])[label + 1] AS label_name, ($ids::INTEGER[])[pseudo_class + 1] AS suggested, "
        "($names::VARCHAR[])[pseudo_class + 1] AS suggested_name, confidence, label_probability "
        "FROM judged WHERE why IS NULL ORDER BY rank LIMIT $limit",
        {
            "labels": list(sides.dataset_names), "ids": list(sides.dataset_ids), "names": list(sides.teacher_names),
            "limit": 2**62 if limit is None else limit,
        },
    ).fetch_arrow_table()  # fmt: skip
    columns = [rows[field.name].combine_chunks().cast(field.type) for field in DISAGREEMENTS_SCHEMA]
    return pa.table(columns, schema=DISAGREEMENTS_SCHEMA)


def write_queue(queue: Queue) -> str:
    """Return the queue as CSV, for people to fill in the verdicts."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(QUEUE_COLUMNS)
    for row in queue.rows.to_pylist():
        cells = {**row, "confidence": f"{row['confidence']:.4f}", "verdict": "", "queue": queue.version.number}
        writer.writerow(["" if cells[name] is None else cells[name] for name in QUEUE_COLUMNS])
    return text.getvalue()


def read_likeliest(store: Store, queue: Queue, image_ids: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
    """Return for each image the teacher's likeliest classes by name with their probabilities, likeliest first."""
    classes = read_classes(queue.labels.metadata)
    with store.connect() as sql:
        found = sql.execute(
            f"SELECT image_id, class_ids, probabilities FROM {name_view(queue.labels)} "  # noqa: S608 - a checked name
            "WHERE image_id IN (SELECT unnest($ids::VARCHAR[]))",
            {"ids": list(image_ids)},
        ).fetchall()
    return {
        image_id: [
            (classes.classes[number].name if classes else f"class {number}", probability)
            for number, probability in zip(ids, probabilities, strict=True)
        ]
        for image_id, ids, probabilities in found
    }
