"""Keep what people decided about images when their source is ingested again."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from labelmill.schemas.images import Reason
from labelmill.schemas.parameters import IngestSettings
from labelmill.schemas.selection import Verdict
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.store import open_store

_COLUMNS = ("image_id", "verdict", "label_before", "label")

DROPPED_DETAIL = "dropped by a verdict; see the table verdicts"


def keep_verdicts(
    parameters: IngestSettings, ids: Sequence[str], files: Sequence[ListedFile], labels: list[int | None]
) -> tuple[Sequence[ListedFile], list[int | None], dict[str, int]]:
    """Return files and labels with the dataset's verdicts on top, and the version of the verdicts for the lineage."""
    table = open_store(parameters.store).table(f"{parameters.dataset}.verdicts")
    latest = table.latest()
    if latest is None:
        return files, labels, {}
    kept = apply_verdicts(table.read(latest, _COLUMNS), ids, files, labels)
    return *kept, {table.name: latest.number}


def apply_verdicts(
    verdicts: pa.Table, ids: Sequence[str], files: Sequence[ListedFile], labels: Sequence[int | None]
) -> tuple[Sequence[ListedFile], list[int | None]]:
    """Return files and labels as people want them, given the verdicts' rows in the order they were made.

    A verdict holds while the source says what it said when the verdict was made: where the source's own label has
    changed since, that one counts.
    """
    places = {image_id: place for place, image_id in enumerate(ids)}
    new_files, new_labels = list(files), list(labels)
    columns = (verdicts[name].to_pylist() for name in _COLUMNS)
    for image_id, verdict, before, label in zip(*columns, strict=True):
        place = places.get(image_id)
        if place is None or new_labels[place] != before:
            continue
        if verdict == Verdict.DROPPED:
            new_files[place] = new_files[place]._replace(rejected=(Reason.DROPPED, DROPPED_DETAIL))
        else:
            new_labels[place] = label
    return new_files, new_labels
