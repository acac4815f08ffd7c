"""How long a selection takes and how much memory, against copying the same rows with DuckDB alone.

    python tests/bench/selection_speed.py --rows 10000000

Rows are drawn: 1,000 classes of very different sizes, top 5, ids of 40 characters.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.parameters import PseudoReportParameters, SelectParameters
from labelmill.schemas.pseudo_labels import PSEUDO_LABELS_SCHEMA
from labelmill.schemas.versions import Lineage
from labelmill.tasks.selection.job import select_labels
from labelmill.tasks.selection.report import report_thresholds
from labelmill.tasks.store import open_store

CLASSES, TOP_K, PART_ROWS = 1000, 5, 100_000


def draw_rows(first, count, random):
    weights = 1 / np.arange(1, CLASSES + 1)
    top = random.choice(CLASSES, count, p=weights / weights.sum()).astype(np.int32)
    confidence = random.beta(2, 1, count).astype(np.float32)
    ids = (top[:, None] + np.arange(TOP_K)) % CLASSES
    shares = np.sort(random.dirichlet(np.ones(TOP_K - 1), count), 1)[:, ::-1] * (1 - confidence)[:, None] * 0.9
    probabilities = np.column_stack([confidence, np.minimum(shares, confidence[:, None])]).astype(np.float32)
    offsets = np.arange(count + 1, dtype=np.int32) * TOP_K
    columns = {
        "image_id": [f"train/n{n % 10**8:08d}/n{n % 10**8:08d}_{n:09d}.JPEG" for n in range(first, first + count)],
        "split": pa.repeat("train", count),
        "pseudo_class": top,
        "confidence": confidence,
        "margin": confidence - probabilities[:, 1],
        "entropy": 1 - confidence,
        "class_ids": pa.ListArray.from_arrays(offsets, ids.ravel().astype(np.int32)),
        "probabilities": pa.ListArray.from_arrays(offsets, probabilities.ravel()),
        "label": pa.array(top, mask=random.random(count) < 0.99),
        "status": pa.repeat("done", count),
    }
    arrays = [columns.get(f.name, pa.nulls(count, f.type)) for f in PSEUDO_LABELS_SCHEMA]
    return pa.table(
        [pa.array(a).cast(f.type) for a, f in zip(arrays, PSEUDO_LABELS_SCHEMA, strict=True)], PSEUDO_LABELS_SCHEMA
    )


def make_table(folder, rows):
    table = open_store(folder, create=True).table("drawn.pseudo_labels")
    random = np.random.default_rng(0)
    starts = range(0, rows, PART_ROWS)
    parts = [table.write_part(draw_rows(s, min(PART_ROWS, rows - s), random), key=f"{s:020d}") for s in starts]
    classes = ClassList(classes=tuple(ClassName(name=f"class {n}") for n in range(CLASSES)), source="drawn")
    lineage = Lineage(
        code="", flow="bench", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host=""
    )
    table.replace(
        parts, schema=PSEUDO_LABELS_SCHEMA, metadata={"classes": classes.model_dump(mode="json")}, lineage=lineage
    )


def work(what, folder):
    """Do one thing and tell seconds and the highest memory of this process."""
    started, before = time.monotonic(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    if what == "copy":
        source = f"read_parquet('{folder}/drawn/pseudo_labels/parts/*.parquet')"
        with duckdb.connect() as sql:
            sql.execute(
                "COPY (SELECT image_id, split, pseudo_class, class_ids, probabilities, confidence, 1 AS copies, label, "
                f"status, reason FROM {source}) TO '{folder}/copy.parquet' (COMPRESSION zstd)"
            )
    elif what == "report":
        report_thresholds(PseudoReportParameters(store=folder, dataset="drawn"))
    else:
        rules = {"threshold": {}, "quota": {"quota": 1300}, "relevance": {"relevant_share": 0.1, "quota": 1300}}
        given = {"threshold": 0.8, "temperature": 0.4, **rules[what]}
        made = select_labels(SelectParameters(store=folder, dataset="drawn", table=what, **given))
        assert made.copies == (1300 * made.classes if "quota" in given else made.chosen)
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = used.ru_utime + used.ru_stime - before
    print(f"{what:10} {seconds:7.1f} s, {cpu_s:7.1f} s of CPU, at most {used.ru_maxrss / 2**20:.2f} GiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", nargs=2)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_table(folder, options.rows)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
        print(f"{options.rows:,} rows, {size / 2**20:,.0f} MiB", flush=True)
        for what in ("copy", "quota", "threshold", "relevance", "report", "copy"):
            subprocess.run([sys.executable, __file__, "--work", what, folder], check=True)


if __name__ == "__main__":
    main()
