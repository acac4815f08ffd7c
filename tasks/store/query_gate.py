"""Tell a query that only reads from one that writes."""

from __future__ import annotations

import json
import re

import duckdb

from labelmill.schemas.errors import BadInput

_EXPLAIN = re.compile(r"explain(\s+analyze\b)?\s*(\(\s*(analyze|format)\b[\w\s,]*\))?", re.IGNORECASE)

_NODE = re.compile(r'"type":"(\w+_NODE)"')  # quotes in the user's own text are escaped in JSON, so it cannot match

_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE", "STATEMENT_NODE"})


def check_reads_only(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise BadInput unless each statement of `query` only reads; duckdb.Error when it is no SQL.

    The statement's type is not enough: DuckDB 2 takes `WITH x AS (COPY … TO …) SELECT …` for a SELECT.
    """
    for statement in connection.extract_statements(query):
        if statement.type == duckdb.StatementType.EXPLAIN:  # EXPLAIN ANALYZE runs what it explains
            _check_explained(connection, statement.query)
        elif statement.type != duckdb.StatementType.SELECT:
            raise _refusal(statement.type.name)
        else:
            _check_nodes(connection, statement.query)


def _check_explained(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    explained = connection.extract_statements(_EXPLAIN.sub("", query.lstrip(), count=1))
    if len(explained) != 1 or explained[0].type != duckdb.StatementType.SELECT:
        raise _refusal("EXPLAIN of " + (explained[0].type.name if explained else "nothing"))
    _check_nodes(connection, explained[0].query)


def _check_nodes(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    row = connection.cursor().execute("SELECT json_serialize_sql($1::VARCHAR)::VARCHAR", [query]).fetchone()
    tree = str(row[0]) if row else ""
    kinds = set(_NODE.findall(tree))
    if not kinds:
        raise BadInput(f"a store is read-only for SQL: cannot tell what this query does: {_message(tree)}")
    if writing := kinds - _READING_NODES:
        raise _refusal(", ".join(sorted(kind.removesuffix("_NODE").removesuffix("_QUERY") for kind in writing)))


def _message(tree: str) -> str:
    return str(json.loads(tree).get("error_message", "")) if tree else ""


def _refusal(kind: str) -> BadInput:
    return BadInput(f"a store is read-only for SQL: expected SELECT, got {kind}")
