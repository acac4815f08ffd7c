"""The last step of a run that makes label maps: its shards become a version."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, LabelMapMetadata
from labelmill.schemas.versions import Lineage, Version
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.table import Table


def commit_label_maps(
    table: Table, receipts: Sequence[Receipt], *, metadata: LabelMapMetadata, lineage: Lineage, run: str
) -> Version:
    """Make the shards of run `run` a version, in their order; return the latest as it is when it holds just these."""
    parts = [receipt.part for receipt in receipts]
    version = table.replace(parts, schema=LABEL_MAPS_SCHEMA, metadata=metadata.model_dump(mode="json"), lineage=lineage)
    table.receipts.close_run(run)
    return version
