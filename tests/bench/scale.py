"""The constants of docs/scale.md: what a file, a row, a part, a receipt and a task cost when there are very many.

Everything is measured at a size that fits this machine and divided by it; the document multiplies.

    python tests/bench/scale.py [--files 200000] [--rows 500000] [--parts 5000]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestFolderParameters
from labelmill.schemas.versions import Lineage, Part, Version
from labelmill.tasks.relabel.shards import plan_shards
from labelmill.tasks.store import open_store
from labelmill.tasks.store.files import hash_file
from labelmill.tasks.store.receipts import Receipt

LINEAGE = Lineage(code="", flow="", parameters={}, parameters_digest="", inputs={}, time="", host="")
METADATA = {"kind": "images", "roots": {"train": "/data"}, "classes": None}


def show(what: str, value: float, unit: str) -> None:
    """Print a constant."""
    print(f"| {what} | {value:,.3g} {unit} |", flush=True)


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plan_an_ingest(folder: Path, files: int) -> None:
    """List a folder of new files and plan its ingest."""
    from labelmill.tasks.ingest.job import prepare_folder

    first = folder / "images" / "0000" / "image_00000000.jpg"
    first.parent.mkdir(parents=True)
    first.write_bytes(b"x")
    for number in range(1, files):
        path = folder / "images" / f"{number // 10_000:04d}" / f"image_{number:08d}.jpg"
        if number % 10_000 == 0:
            path.parent.mkdir()
            path.write_bytes(b"x")
            first = path  # a file system has a bound on the names of one file
        else:
            path.hardlink_to(first)
    before, start = peak_mib(), time.monotonic()
    parameters = IngestFolderParameters(source=str(folder / "images"), store=str(folder / "store"), dataset="many")
    run = prepare_folder(parameters)
    assert run.files_to_read == files
    show("ingest, list and plan: time a file", 1e6 * (time.monotonic() - start) / files, "µs")
    show("ingest, list and plan: memory a file", (peak_mib() - before) * 2**20 / files, "bytes")


def plan_a_relabel(folder: Path, rows: int) -> None:
    """Plan the shards of an images version, and see what its rows take in the store."""
    table = open_store(str(folder / "store"), create=True).table("many.images")
    parts = []
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        names = [f"n01440764/n01440764_{start + number}.JPEG" for number in range(count)]
        given = {
            "image_id": names, "uri": names, "split": ["train"] * count, "status": ["done"] * count,
            "label": [number % 1000 for number in range(count)], "bytes": [110_000 + n % 999 for n in range(count)],
            "sha256": [os.urandom(32).hex() for _ in range(count)], "mtime_ns": list(range(count)),
            "width": [500] * count, "height": [375] * count,
        }  # fmt: skip
        columns = [pa.array(given.get(field.name, [None] * count), field.type) for field in IMAGES_SCHEMA]
        parts.append(table.write_part(pa.table(columns, schema=IMAGES_SCHEMA), key=f"{start:016d}"))
    version = table.replace(parts, schema=IMAGES_SCHEMA, metadata=METADATA, lineage=LINEAGE)
    show("images: stored bytes a row", sum(part.bytes for part in parts) / rows, "bytes")
    start = time.monotonic()
    shards = list(
        plan_shards(table, version, split=None, shard_size=2048, common={}, teacher_labels=tuple(range(1000)))
    )
    show("relabel, plan the shards: time a row", 1e6 * (time.monotonic() - start) / rows, "µs")
    show("relabel, plan the shards: shards", len(shards), "")


def open_many_parts(folder: Path, count: int) -> None:
    """Commit a version of many parts, read it, open it in SQL and ask for its rows."""
    store = open_store(str(folder / "store"), create=True)
    table = store.table("parts.things")
    rows = pa.table({"a": list(range(2048))})
    part = table.write_part(rows, key="0" * 16)
    first = Path(table.part_path(part))
    parts = []
    for number in range(count):
        path = f"parts/{number:016d}-{part.sha256[:16]}.parquet"
        if first != first.parent.parent / path:
            (first.parent.parent / path).hardlink_to(first)
        parts.append(Part(path=path, rows=part.rows, bytes=part.bytes, sha256=part.sha256))
    start = time.monotonic()
    version = table.replace(parts, schema=rows.schema, metadata={}, lineage=LINEAGE)
    show("version: commit, a part", 1e6 * (time.monotonic() - start) / count, "µs")
    file = next(Path(table.folder, "versions").iterdir())
    show("version: bytes a part", file.stat().st_size / count, "bytes")
    start = time.monotonic()
    Version.model_validate_json(file.read_bytes()).digest()
    show("version: read and check, a part", 1e6 * (time.monotonic() - start) / count, "µs")
    start = time.monotonic()
    with store.connect() as sql:
        show("SQL: connect, a part of every version", 1e6 * (time.monotonic() - start) / count, "µs")
        start = time.monotonic()
        assert sql.execute("SELECT count(*) FROM parts.things").fetchall() == [(version.rows,)]
        show("SQL: first look into a part", 1e6 * (time.monotonic() - start) / count, "µs")


def find_receipts(folder: Path, count: int) -> None:
    """Write and find receipts, and see how fast parts are hashed."""
    table = open_store(str(folder / "store"), create=True).table("receipts.things")
    part = table.write_part(pa.table({"a": list(range(2048))}), key="0" * 16)
    start = time.monotonic()
    for number in range(count):
        table.receipts.write(Receipt(key=f"{number:064d}", run="r", part=part, counts={"done": 1, "rejected": 0}))
    show("receipt: write", 1e6 * (time.monotonic() - start) / count, "µs")
    start = time.monotonic()
    for number in range(count):
        assert table.receipts.find(f"{number:064d}", run="r")
    show("receipt: find, its part a small one", 1e6 * (time.monotonic() - start) / count, "µs")
    start = time.monotonic()
    assert len(table.receipts.all()) == count
    show("receipt: read all, each", 1e6 * (time.monotonic() - start) / count, "µs")
    large = folder / "large"
    large.write_bytes(os.urandom(2**28))
    hash_file(large)
    start = time.monotonic()
    hash_file(large)
    show("parts: hash", 2**28 / (time.monotonic() - start) / 1e9, "GB/s")


def main() -> None:
    """Read the command line and print the table, each part of it from a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--parts", type=int, default=5_000)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = {
        "ingest": lambda folder: plan_an_ingest(folder, options.files),
        "relabel": lambda folder: plan_a_relabel(folder, options.rows),
        "parts": lambda folder: open_many_parts(folder, options.parts),
        "receipts": lambda folder: find_receipts(folder, options.parts),
    }
    if options.only:
        with tempfile.TemporaryDirectory() as name:
            steps[options.only](Path(name))
        return
    print("| what | costs |\n|---|---|", flush=True)
    for name in steps:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", name], check=True)


if __name__ == "__main__":
    main()
