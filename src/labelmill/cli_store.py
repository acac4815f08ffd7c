"""The commands that look at a store: versions, sql, page, verify, gc, delete, and the demo."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labelmill.cli_text import format_table, write_csv, write_json
from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import check_location
from labelmill.schemas.versions import Version
from labelmill.tasks.ingest.list_files import is_text
from labelmill.tasks.store import open_store
from labelmill.tasks.wording import format_bytes

if TYPE_CHECKING:
    from labelmill.tasks.store.connection import StoreConnection

_EXAMPLE = '"SELECT * FROM imagenet.label_maps LIMIT 5"'

ROWS_AT_ONCE = 1000
"""Rows of csv and json are fetched and written by so many: a large answer needs no memory."""


def versions_command(options: argparse.Namespace) -> int:
    """List tables with their latest version, or all versions of one table."""
    store = open_store(options.store)
    if options.table:
        rows = [_describe(options.table, version) for version in store.versions(options.table)]
    else:
        rows = [_describe(name, store.table(name).version()) for name in store.tables()]
    if not rows:
        print(f"{store.root}: no tables yet")
        return 0
    print(format_table(("table", "version", "rows", "parts", "size", "how", "made by", "time"), rows))
    return 0


def _describe(table: str, version: Version) -> tuple[str, ...]:
    size = format_bytes(sum(part.bytes for part in version.parts))
    lineage = version.lineage
    made_by = " ".join([lineage.flow, str((lineage.teacher or {}).get("name", ""))]).rstrip()
    return (
        table,
        str(version.number),
        f"{version.rows:,}",
        str(len(version.parts)),
        size,
        version.operation,
        made_by,
        lineage.time,
    )


def sql_command(options: argparse.Namespace) -> int:
    """Run a query over the store's views, or print the views."""
    import duckdb

    store = open_store(options.store)
    if options.views:
        from labelmill.tasks.store.views import view_statements

        for statement in view_statements(store):
            print(f"{statement};")
        return 0
    if not is_text(options.query or ""):
        raise BadInput("sql: expected a query in valid UTF-8")
    try:
        found = len(duckdb.extract_statements(options.query or ""))
        if found != 1:
            raise BadInput(f"sql: expected one query, got {found or 'none'}; for example {_EXAMPLE}, or --views")
        with store.connect() as connection:
            _print_rows(connection, options.query, options.format)
    except duckdb.Error as error:
        raise BadInput(f"sql: {error}") from error
    sys.stdout.flush()
    return 0


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((120, 24)).columns


def _print_rows(connection: StoreConnection, query: str, form: str) -> None:
    if form == "table":
        connection.sql(query).show(max_rows=200, max_width=_terminal_width())
        return
    connection.execute(query)
    names = [column[0] for column in connection.description]
    rows = (row for some in iter(lambda: connection.fetchmany(ROWS_AT_ONCE), []) for row in some)
    (write_csv if form == "csv" else write_json)(names, rows, sys.stdout)


def verify_command(options: argparse.Namespace) -> int:
    """Check a version; exit 1 with one line for each problem."""
    from labelmill import cli_reinfer
    from labelmill.tasks.store.verify import verify_version

    cli_reinfer.check_options(options)
    result = verify_version(open_store(options.store).table(options.table), options.version)
    name = f"{options.table} v{result.version.number}"
    for problem in result.problems:
        print(f"{name}: {problem}")
    if result.problems:
        print(f"{name}: {len(result.problems)} problems in {result.parts} parts", file=sys.stderr)
        return 1
    print(f"{name}: {result.parts} parts, {result.version.rows:,} rows, {format_bytes(result.bytes)}: as written")
    return 0 if options.reinfer is None else cli_reinfer.reinfer_command(options)


def gc_command(options: argparse.Namespace) -> int:
    """Remove what nothing needs, in all tables."""
    from labelmill.tasks.store.gc import collect_garbage

    if not all(math.isfinite(n) and n >= 0 for n in (options.grace_hours, options.resume_days)):
        raise BadInput("gc: --grace-hours and --resume-days: expected 0 or more")
    store = open_store(options.store)
    for name in store.tables(unlisted=True):
        collected = collect_garbage(
            store.table(name),
            grace_s=options.grace_hours * 3600,
            resume_s=options.resume_days * 86400,
            dry_run=options.dry_run,
        )
        verb = "would remove" if options.dry_run else "removed"
        print(f"{name}: {verb} {len(collected.files)} files, {format_bytes(collected.bytes)}")
    return 0


def delete_command(options: argparse.Namespace) -> int:
    """Put a tombstone on a version."""
    open_store(options.store).table(options.table).delete(options.version, reason=options.reason)
    print(f"{options.table} v{options.version}: deleted; its parts go at the next gc after the grace period")
    return 0


def page_command(options: argparse.Namespace) -> int:
    """Write the page of a label maps version."""
    from labelmill.tasks.report.page import build_page
    from labelmill.tasks.store.files import replace_file

    root = check_location(options.image_root) if options.image_root else None
    page = build_page(
        open_store(options.store), options.table, version=options.version, images=options.images, image_root=root
    ).encode()
    replace_file(Path(options.out), page)
    print(f"{options.out}: {format_bytes(len(page))}")
    return 0


def demo_command(options: argparse.Namespace) -> int:
    """Run the demo."""
    from labelmill.cli_demo import run_demo

    return run_demo(options.out)
