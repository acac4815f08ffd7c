"""A DuckDB connection over a store's views that only reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb

from labelmill.schemas.locations import is_object_url
from labelmill.tasks.store.query_gate import check_reads_only
from labelmill.tasks.store.relation import ReadOnlyRelation
from labelmill.tasks.store.store import Store
from labelmill.tasks.store.views import literal_path, quote, view_statements

if TYPE_CHECKING:
    import pyarrow as pa


class StoreConnection:
    """DuckDB's own connection behind a gate: a statement that is not a query is refused.

    DuckDB cannot open an in-memory database read-only, and the folders that it may read it may also write, so that
    COPY … TO could replace a part. Results and everything else are DuckDB's.
    """

    def __init__(self, inner: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        self._inner = inner
        self._read_only = read_only

    def execute(self, query: str, parameters: Sequence[object] | dict[str, object] | None = None) -> Self:
        """Run a query; fetch its rows from this connection, as with DuckDB's own."""
        self._check(query)
        self._inner.execute(query, parameters)
        return self

    def sql(self, query: str, **options: Any) -> Any:  # noqa: ANN401 - DuckDB's relation, or the part of it that reads
        """Return the relation of a query, None when there was nothing but comments."""
        self._check(query)
        return self._relation(self._inner.sql(query, **options))

    query = sql

    def table(self, name: str) -> Any:  # noqa: ANN401 - as for `sql`
        """Return a view, such as `imagenet.images`, as a relation."""
        return self._relation(self._inner.view(name))

    view = table

    def fetch_arrow_table(self) -> pa.Table:
        """Return the rows of the last query as an Arrow table."""
        with warnings.catch_warnings():  # DuckDB 2 says that `sql(query).to_arrow_table()` saves a copy
            warnings.simplefilter("ignore", UserWarning)
            named = "to_arrow_table" if hasattr(self._inner, "to_arrow_table") else "fetch_arrow_table"
            return getattr(self._inner, named)()

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
        reads = name.startswith("fetch") or name in {"df", "pl", "arrow", "description", "rowcount", "interrupt"}
        if self._read_only and not reads:
            raise AttributeError(f"{name} is not offered by a read-only connection; use store.connect(read_only=False)")
        return getattr(self._inner, name)

    def _check(self, query: str) -> None:
        if self._read_only:
            check_reads_only(self._inner, query)

    def _relation(self, found: duckdb.DuckDBPyRelation | None) -> ReadOnlyRelation | duckdb.DuckDBPyRelation | None:
        return ReadOnlyRelation(found) if self._read_only and found is not None else found


def open_connection(store: Store, *, read_only: bool) -> StoreConnection:
    """Open an in-memory DuckDB with the store's views; see `Store.connect`."""
    inner = duckdb.connect(":memory:")
    try:
        if is_object_url(store.root):
            from labelmill.tasks.store.object_reads import ObjectReads

            inner.register_filesystem(ObjectReads(str(store.root)))
        for statement in view_statements(store):
            inner.execute(statement)
        if read_only:
            root = f"{store.root}/"  # also as the pattern in the views, which is judged before what it matches
            inner.execute(f"SET allowed_directories = {_list({root, literal_path(root)})}")
            inner.execute(f"SET allowed_paths = {_list(_linked_parts(store))}")
            inner.execute("SET enable_external_access = false")
            inner.execute("SET lock_configuration = true")
    except BaseException:
        inner.close()
        raise
    return StoreConnection(inner, read_only=read_only)


def _linked_parts(store: Store) -> Iterator[str]:
    """Yield where parts really lie that a link takes out of the store's folder: DuckDB looks behind links."""
    if not isinstance(store.root, Path):
        return
    root = store.root.resolve()
    for name in store.tables():
        folder = Path(store.table(name).folder, "parts")
        away = not folder.resolve().is_relative_to(root)
        for path in folder.glob("*.parquet"):
            if away or path.is_symlink():
                yield str(path.resolve())


def _list(paths: Iterable[str]) -> str:
    return f"[{', '.join(quote(path) for path in paths)}]"
