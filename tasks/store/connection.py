"""A DuckDB connection over a store's views that only reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import duckdb

from labelmill.schemas.errors import BadInput
from labelmill.tasks.store.store import Store
from labelmill.tasks.store.views import quote, view_statements

_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)


class StoreConnection:
    """DuckDB's own connection behind a gate: a statement that is not a query is refused.

    DuckDB cannot open an in-memory database read-only, and the folders that it may read it may also write, so that
    COPY … TO could replace a part. Results, relations and everything else are DuckDB's.
    """

    def __init__(self, inner: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        self._inner = inner
        self._read_only = read_only

    def execute(self, query: str, parameters: Sequence[object] | dict[str, object] | None = None) -> Self:
        """Run a query; fetch its rows from this connection, as with DuckDB's own."""
        self._check(query)
        self._inner.execute(query, parameters)
        return self

    def sql(self, query: str, **options: str) -> duckdb.DuckDBPyRelation:
        """Return the relation of a query."""
        self._check(query)
        return self._inner.sql(query, **options)

    query = sql

    def cursor(self) -> StoreConnection:
        """Return a connection to the same views for use in another thread."""
        return StoreConnection(self._inner.cursor(), read_only=self._read_only)

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - DuckDB's own attributes
        if name.startswith("fetch") or name in {"df", "pl", "arrow", "description", "rowcount", "table", "view"}:
            return getattr(self._inner, name)
        if self._read_only:
            raise AttributeError(f"{name} is not offered by a read-only connection; use store.connect(read_only=False)")
        return getattr(self._inner, name)

    def _check(self, query: str) -> None:
        if not self._read_only:
            return
        for statement in self._inner.extract_statements(query):
            if statement.type == duckdb.StatementType.EXPLAIN:  # EXPLAIN ANALYZE runs what it explains
                self._check(_EXPLAIN.sub("", statement.query, count=1))
            elif statement.type != duckdb.StatementType.SELECT:
                kind = statement.type.name
                raise BadInput(f"a store is read-only for SQL: expected SELECT, got {kind}")


def open_connection(store: Store, *, read_only: bool) -> StoreConnection:
    """Open an in-memory DuckDB with the store's views; see `Store.connect`."""
    inner = duckdb.connect(":memory:")
    try:
        for statement in view_statements(store):
            inner.execute(statement)
        if read_only:
            inner.execute(f"SET allowed_directories = [{quote(str(store.root) + '/')}]")
            inner.execute("SET enable_external_access = false")
            inner.execute("SET lock_configuration = true")
    except BaseException:
        inner.close()
        raise
    return StoreConnection(inner, read_only=read_only)
