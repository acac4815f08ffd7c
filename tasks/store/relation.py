"""DuckDB's relation without its methods that write."""

from __future__ import annotations

from typing import Any

import duckdb

_OFFERED = frozenset([
    "aggregate", "alias", "arrow", "columns", "count", "cross", "describe", "description", "df", "distinct",
    "dtypes", "except_", "explain", "fetch_arrow_reader", "fetch_arrow_table", "fetch_record_batch", "fetchall",
    "fetchdf", "fetchmany", "fetchnumpy", "fetchone", "filter", "head", "intersect", "iter_rows", "join",
    "limit", "max", "mean", "median", "min", "offset", "order", "pl", "preview", "project", "rename", "sample",
    "select", "set_alias", "shape", "show", "sort", "sql_query", "sum", "to_arrow_reader", "to_arrow_table",
    "to_df", "to_dicts", "torch", "types", "union", "unique", "value_counts",
])  # fmt: skip


class ReadOnlyRelation:
    """A query's relation: it can be shown, fetched and refined; `to_parquet`, `insert_into` and the like are refused.

    They would write where the connection may read, which is the store.
    """

    def __init__(self, inner: duckdb.DuckDBPyRelation) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - DuckDB's own attributes
        if name not in _OFFERED:
            raise AttributeError(f"{name} is not offered by a read-only relation; fetch its rows instead")
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: object, **options: object) -> Any:  # noqa: ANN401 - as DuckDB's
            result = found(*map(_bare, arguments), **{key: _bare(value) for key, value in options.items()})
            return ReadOnlyRelation(result) if isinstance(result, duckdb.DuckDBPyRelation) else result

        return call

    def __repr__(self) -> str:
        return repr(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._inner.__arrow_c_stream__(requested_schema)


def _bare(value: object) -> object:
    return value._inner if isinstance(value, ReadOnlyRelation) else value
