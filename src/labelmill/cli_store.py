"""The commands that look at a store: versions, sql, verify, gc, delete, and the demo."""

from __future__ import annotations

import argparse
import csv
import json
import sys

from labelmill.cli_text import format_bytes, format_table
from labelmill.schemas.errors import BadInput
from labelmill.tasks.store import Store, open_store


def versions_command(options: argparse.Namespace) -> int:
    """List tables with their latest version, or all versions of one table."""
    store = open_store(options.store)
    if options.table:
        rows = [_describe(store, options.table, v.number) for v in store.versions(options.table)]
    else:
        rows = [_describe(store, name, None) for name in store.tables()]
    if not rows:
        print(f"{store.root}: no tables yet")
        return 0
    print(format_table(("table", "version", "rows", "parts", "size", "how", "made by", "time"), rows))
    return 0


def _describe(store: Store, table: str, number: int | None) -> tuple[str, ...]:
    version = store.table(table).version(number)
    size = format_bytes(sum(part.bytes for part in version.parts))
    lineage = version.lineage
    made_by = lineage.flow + (f" {lineage.teacher['name']}" if lineage.teacher else "")
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
    if not options.query:
        raise BadInput('sql: expected a query, for example "SELECT * FROM imagenet.label_maps LIMIT 5", or --views')
    try:
        with store.connect() as connection:
            if options.format == "table":
                connection.sql(options.query).show(max_rows=200, max_width=_terminal_width())
            else:
                connection.execute(options.query)
                names = [column[0] for column in connection.description]
                _print_rows(names, connection.fetchall(), options.format)
    except duckdb.Error as error:
        raise BadInput(f"sql: {error}") from error
    return 0


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((120, 24)).columns


def _print_rows(names: list[str], rows: list[tuple[object, ...]], form: str) -> None:
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
    else:
        json.dump([dict(zip(names, row, strict=True)) for row in rows], sys.stdout, default=str, ensure_ascii=False)
        print()


def verify_command(options: argparse.Namespace) -> int:
    """Check a version; exit 1 with one line for each problem."""
    from labelmill.tasks.store.verify import verify_version

    result = verify_version(open_store(options.store).table(options.table), options.version)
    name = f"{options.table} v{result.version.number}"
    for problem in result.problems:
        print(f"{name}: {problem}")
    if result.problems:
        print(f"{name}: {len(result.problems)} problems in {result.parts} parts", file=sys.stderr)
        return 1
    print(f"{name}: {result.parts} parts, {result.version.rows:,} rows, {format_bytes(result.bytes)}: as written")
    return 0


def gc_command(options: argparse.Namespace) -> int:
    """Remove what nothing needs, in all tables."""
    from labelmill.tasks.store.gc import collect_garbage

    if options.grace_hours < 0 or options.resume_days < 0:
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


def demo_command(options: argparse.Namespace) -> int:
    """Run the demo."""
    from labelmill.cli_run import run_demo

    return run_demo(options.out)
