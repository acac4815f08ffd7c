"""A selection from its parameters to the manifest's version."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.classes import read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.manifests import MANIFEST_SCHEMA
from labelmill.schemas.parameters import SelectParameters
from labelmill.schemas.selection import ManifestMetadata, SelectionRule
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.selection.choose import CODES, write_decisions, write_manifest
from labelmill.tasks.selection.preflight import find_labels, find_relevance
from labelmill.tasks.store import Change, Store, Table, open_store
from labelmill.tasks.store.connection import StoreConnection
from labelmill.tasks.store.views import name_view, quote, select_parts

PART_ROWS = 500_000
"""Parts of the pseudo labels are taken together up to so many rows: some 100 MB at a time, and few files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A manifest's version and what is to be told of it; `copies` is the length of an epoch.

    `classes` have images; `short` are those with fewer than the quota; `right` of `known` labels are as chosen.
    """

    version: Version
    images: int
    chosen: int
    rejected: dict[str, int]
    copies: int
    classes: int
    short: int
    known: int
    right: int


def select_labels(
    parameters: SelectParameters,
    *,
    part_rows: int = PART_ROWS,
    on_rows: Callable[[int, int], None] = lambda done, rejected: None,
) -> Selection:
    """Choose among pseudo labels and commit the manifest; the latest stays when it says the same.

    All that grows with the images is done by DuckDB over the parts, which spills to disk. Raises BadInput when the
    split has no images, NotInStore when a table or version does not exist.
    """
    store = open_store(parameters.store)
    labels, relevance = find_labels(store, parameters), find_relevance(store, parameters)
    with open_scratch(store) as sql:
        _decide(sql, parameters, labels, relevance)
        version = _write_manifest(sql, store, parameters, labels, relevance, part_rows, on_rows)
        return _measure(sql, parameters, labels, version)


@contextmanager
def open_scratch(store: Store) -> Iterator[StoreConnection]:
    """Open the store's views on a connection that may make tables and spill to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="labelmill-") as folder, store.connect(read_only=False) as sql:
        sql.execute(f"SET temp_directory = {quote(folder)}")
        yield sql


def _decide(sql: StoreConnection, parameters: SelectParameters, labels: Version, relevance: Version | None) -> None:
    """Make the table `decided`: row, code, copies."""
    query = write_decisions(parameters, name_view(labels), name_view(relevance) if relevance else None)
    values = {
        "split": parameters.split,
        "threshold": parameters.threshold,
        "quota": parameters.quota,
        "relevant": parameters.relevant_per_class or parameters.relevant_share,
    }
    used: dict[str, object] = {name: value for name, value in values.items() if f"${name}" in query}
    sql.execute(f"CREATE TEMP TABLE decided AS {query}", used)
    if not sql.execute("SELECT count(*) FROM decided").fetchall()[0][0]:
        raise BadInput(
            f"{labels.table} v{labels.number}: no images"
            + ("" if parameters.split is None else f" of split {parameters.split!r}; name another by split")
        )


def _write_manifest(
    sql: StoreConnection,
    store: Store,
    parameters: SelectParameters,
    labels: Version,
    relevance: Version | None,
    part_rows: int,
    on_rows: Callable[[int, int], None],
) -> Version:
    metadata = _describe_rule(parameters, labels, relevance)
    source, table = store.table(labels.table), store.table(f"{parameters.dataset}.{parameters.table}")
    key = digest_json(metadata)
    parts = []
    for start, group in _group_parts(labels.parts, part_rows):
        query = write_manifest(parameters, select_parts(source, labels, group))
        values = {"start": start, "rejected": Status.REJECTED.value}
        if parameters.targets == "soft":
            values["temperature"] = parameters.temperature
        rows = sql.execute(query, values).fetch_arrow_table()
        if rows.num_rows:
            parts.append(table.write_part(_conform(rows), key=key))
        chosen = pc.sum(pc.equal(rows["status"], Status.DONE.value)).as_py() or 0
        on_rows(chosen, rows.num_rows - chosen)
    return _commit(table, parts, metadata, parameters, [v for v in (labels, relevance) if v is not None])


def _group_parts(parts: Sequence[Part], rows: int) -> Iterator[tuple[int, list[Part]]]:
    """Yield consecutive parts that together have at most so many rows, or a larger one alone, with their first row."""
    start, taken, group = 0, 0, list[Part]()
    for part in parts:
        if group and taken + part.rows > rows:
            yield start, group
            start, taken, group = start + taken, 0, []
        group.append(part)
        taken += part.rows
    if group:
        yield start, group


def _conform(rows: pa.Table) -> pa.Table:
    columns = [rows[field.name].combine_chunks().cast(field.type) for field in MANIFEST_SCHEMA]
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def _describe_rule(parameters: SelectParameters, labels: Version, relevance: Version | None) -> dict[str, object]:
    rule = SelectionRule(
        **parameters.model_dump(include=set(SelectionRule.model_fields) - {"labels", "relevance"}),
        labels=f"{labels.table} v{labels.number}",
        relevance=relevance and f"{relevance.table} v{relevance.number}",
    )
    return ManifestMetadata(classes=read_classes(labels.metadata), rule=rule).model_dump(mode="json")


def _commit(
    table: Table,
    parts: Sequence[Part],
    metadata: dict[str, object],
    parameters: SelectParameters,
    inputs: Sequence[Version],
) -> Version:
    def change(latest: Version | None) -> Change | None:
        same = latest is not None and (list(latest.parts), latest.metadata) == (list(parts), metadata)
        return None if same else Change(operation="replace", parts=parts, metadata=metadata)

    lineage = make_lineage("select", parameters, inputs={version.table: version.number for version in inputs})
    return table.commit(change, schema=MANIFEST_SCHEMA, lineage=lineage)


def _measure(sql: StoreConnection, parameters: SelectParameters, labels: Version, version: Version) -> Selection:
    counts = dict(sql.execute("SELECT code, count(*) FROM decided GROUP BY code").fetchall())
    known = sql.execute(
        "SELECT pseudo_class, count(*), sum(copies), count(label), count(*) FILTER (label = pseudo_class) "  # noqa: S608 - a checked name
        f"FROM {name_view(labels)} JOIN decided USING (row) WHERE code = 0 GROUP BY pseudo_class"
    ).fetchall()
    others = sql.execute(
        f"SELECT coalesce(reason, status), count(*) FROM {name_view(labels)} JOIN decided USING (row) "  # noqa: S608
        f"WHERE code = {len(CODES) - 1} GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    rejected = Counter({str(CODES[code]): counts[code] for code in sorted(counts) if CODES[code] is not None})
    return Selection(
        version=version,
        images=sum(counts.values()),
        chosen=counts.get(0, 0),
        rejected=dict(rejected + Counter(dict(others))),
        copies=int(sum(row[2] for row in known)),
        classes=len(known),
        short=sum(row[1] < (parameters.quota or 0) for row in known),
        known=sum(row[3] for row in known),
        right=sum(row[4] for row in known),
    )
