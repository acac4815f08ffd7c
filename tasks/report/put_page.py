"""Put the page of a version where it was asked for, or beside the table."""

from __future__ import annotations

from pathlib import Path

from labelmill.tasks.store import Table
from labelmill.tasks.store.files import replace_file


def put_page(page: str, table: Table, number: int, *, report: str | None) -> str:
    """Write the HTML page of a version to the file `report`, or `reports/vN.html` in the table's folder; return where.

    Raises OSError when the place takes no file.
    """
    data = page.encode("utf-8", "backslashreplace")
    if report is not None:
        replace_file(Path(report), data)
        return report
    table.files.replace(f"reports/v{number}.html", data)
    return f"{table.folder}/reports/v{number}.html"
