"""The last step of a run that makes label maps: its shards become a version."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, LabelMapMetadata
from labelmill.schemas.versions import Lineage, Version
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.table import Change, Table


def commit_label_maps(
    table: Table, receipts: Sequence[Receipt], *, metadata: LabelMapMetadata, lineage: Lineage, run: str
) -> Version:
    """Make the shards of run `run` a version, in their order; return the latest as it is when it holds just these."""
    parts = tuple(receipt.part for receipt in receipts)
    facts = metadata.model_dump(mode="json")

    def change(latest: Version | None) -> Change | None:
        if latest is not None and (latest.parts, latest.metadata) == (parts, facts):
            return None
        return Change(operation="replace", parts=parts, metadata=facts)

    version = table.commit(change, schema=LABEL_MAPS_SCHEMA, lineage=lineage)
    table.receipts.close_run(run)
    return version
