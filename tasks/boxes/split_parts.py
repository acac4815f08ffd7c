"""Write the rows of one split as parts with receipts, and make a version of them beside the other splits' parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from labelmill.schemas.versions import Lineage, Part, Version, digest_json
from labelmill.tasks.store import Change, Table
from labelmill.tasks.store.parquet import Layout
from labelmill.tasks.store.receipts import Receipt

_LAYOUT = Layout(level=1, plain=("segmentation", "extra"))
"""Polygons are most of a large table, and gain little above this level for twice the time."""


def write_split(
    table: Table,
    batches: Iterable[pa.Table],
    *,
    key: str,
    rows: int,
    schema: pa.Schema,
    count: Callable[[pa.Table], Mapping[str, int]],
    on_done: Callable[[int], None] = lambda n: None,
) -> list[Receipt]:
    """Write rows as parts of `rows` each, the last one shorter; what has a receipt is not written again.

    `key` is a digest of all that decides the rows; `count` gives the counts of a part's receipt, `on_done(n)` is called
    with the number of rows done since the last call. Without rows there is one part without rows.
    """

    def write(number: int, part: pa.Table) -> Receipt:
        part_key = digest_json([key, schema.to_string(), rows, number])
        receipt = table.receipts.find(part_key, run=key)
        if receipt is None:
            written = table.write_part(part, key=part_key, layout=_LAYOUT)
            receipt = Receipt(key=part_key, run=key, part=written, counts=dict(count(part)))
            table.receipts.write(receipt)
        return receipt

    table.receipts.open_run(key)
    receipts: list[Receipt] = []
    # Compressing a part needs no Python: meanwhile the next one is read.
    with ThreadPoolExecutor(1, thread_name_prefix="boxes") as writer:
        waiting: Future[Receipt] | None = None
        for number, part in enumerate(_cut(batches, rows, schema)):
            if waiting is not None:
                receipts.append(waiting.result())
            waiting = writer.submit(write, number, part)
            on_done(len(part))
        receipts += [waiting.result()] if waiting is not None else []
    return receipts


def _cut(batches: Iterable[pa.Table], rows: int, schema: pa.Schema) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    ahead, given = 0, False
    for batch in batches:
        waiting.append(batch)
        ahead += len(batch)
        while ahead >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows).combine_chunks()
            waiting, ahead, given = [whole.slice(rows)], ahead - rows, True
    if ahead or not given:
        yield pa.concat_tables([schema.empty_table(), *waiting]).combine_chunks()


def sum_counts(receipts: Sequence[Receipt]) -> Counter[str]:
    """Return the sums of the parts' counts, without those that are zero."""
    total: Counter[str] = Counter()
    for receipt in receipts:
        total.update(receipt.counts)
    return +total


def commit_split(
    table: Table,
    parts: Sequence[Part],
    *,
    split: str,
    metadata: Callable[[dict[str, Any] | None], dict[str, Any]],
    schema: pa.Schema,
    lineage: Lineage,
) -> Version:
    """Make a version in which a split has `parts` and the other splits theirs; the latest one when that is so already.

    `metadata` gets the older version's, None for a new table, and returns the new one's. Which parts are a split's
    stands in `metadata.parts`.
    """

    def change(latest: Version | None) -> Change | None:
        before = latest.metadata if latest else None
        owned = dict(before["parts"]) if before else {}
        paths = [part.path for part in parts]
        gone = set(owned.get(split, ()))
        owned[split] = paths
        made = {**metadata(before), "parts": owned}
        kept = [part for part in (latest.parts if latest else ()) if part.path not in gone]
        if latest is not None and gone == set(paths) and made == before:
            return None
        return Change(operation="replace" if gone else "append", parts=[*kept, *parts], metadata=made)

    return table.commit(change, schema=schema, lineage=lineage)
