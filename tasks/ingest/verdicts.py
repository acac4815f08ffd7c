"""Keep what people decided about images when their source is ingested again."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from labelmill.schemas.images import Reason
from labelmill.schemas.selection import Verdict
from labelmill.tasks.ingest.list_files import ListedFile

VERDICT_COLUMNS = ("image_id", "verdict", "label_before", "label")

DROPPED_DETAIL = "dropped by a verdict; see the table verdicts"


def apply_verdicts(
    verdicts: pa.Table, ids: Sequence[str], files: Sequence[ListedFile], labels: Sequence[int | None]
) -> tuple[Sequence[ListedFile], list[int | None]]:
    """Return files and labels as people want them, given the verdicts (VERDICT_COLUMNS) in the order they were made.

    A verdict holds while the source says what it said when the verdict was made: where the source's own label has
    changed since, that one counts.
    """
    places = {image_id: place for place, image_id in enumerate(ids)}
    new_files, new_labels = list(files), list(labels)
    columns = (verdicts[name].to_pylist() for name in VERDICT_COLUMNS)
    for image_id, verdict, before, label in zip(*columns, strict=True):
        place = places.get(image_id)
        if place is None or new_labels[place] != before:
            continue
        if verdict == Verdict.DROPPED:
            new_files[place] = new_files[place]._replace(rejected=(Reason.DROPPED, DROPPED_DETAIL))
        else:
            new_labels[place] = label
    return new_files, new_labels
