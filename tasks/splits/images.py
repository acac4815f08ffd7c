"""The images that a draw is made from, and the tables that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.parameters import FlowParameters
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.shards import check_split
from labelmill.tasks.store import Store, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """A dataset's whole images, of one split or all, and how many were left out by reason."""

    name: str
    version: Version
    rows: pa.Table
    rejected: dict[str, int]

    def column(self, name: str) -> list[Any]:
        """Return a column's values."""
        values: list[Any] = self.rows[name].to_pylist()
        return values


def read_images(
    store: Store, dataset: str, number: int | None, *, split: str | None, columns: Sequence[str] = (), field: str
) -> Images:
    """Read the images of a dataset that are done; `field` is the parameter that names the split.

    Raises BadInput for an unknown split or column, and when no image is left; NotInStore when there is no table.
    """
    table = store.table(f"{dataset}.images")
    version = table.version(number)
    known = [column.name for column in version.columns]
    if strange := [name for name in columns if name not in known]:
        raise BadInput(f"group_column: expected one of {', '.join(known)}, got {strange[0]!r}")
    rows = table.read(version, dict.fromkeys(["image_id", "split", "label", "sha256", "status", "reason", *columns]))
    if split is not None:
        check_split(split, version.metadata["roots"], field=field)
        rows = rows.filter(pc.equal(rows["split"], split))
    done = rows.filter(pc.equal(rows["status"], Status.DONE))
    if not done.num_rows:
        raise BadInput(
            f"{table.name} v{version.number}: no whole image to divide{f' in split {split}' if split else ''}"
        )
    counts = rows.filter(pc.not_equal(rows["status"], Status.DONE))["reason"].value_counts().to_pylist()
    rejected = {str(count["values"]): int(count["counts"]) for count in counts}
    return Images(name=table.name, version=version, rows=done, rejected=rejected)


def commit_rows(
    table: Table,
    rows: pa.Table,
    *,
    metadata: dict[str, Any],
    flow: str,
    parameters: FlowParameters,
    inputs: dict[str, int],
) -> Version:
    """Make rows a version of a table; the latest stays when it holds the same rows with the same meaning."""
    part = table.write_part(rows, key=digest_json(metadata))
    lineage = make_lineage(flow, parameters, inputs=inputs)
    return table.replace([part], schema=rows.schema, metadata=metadata, lineage=lineage)
