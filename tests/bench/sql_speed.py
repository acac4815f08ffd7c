"""How fast SQL answers over 200,000 label maps at 15x15x5: medians of some runs, in a table in Markdown.

One part of 2,048 drawn maps is written under as many names as it takes. The maps list about 170 classes each, of which
some 50 lead cells, as the sample teacher's do at 475 (167 and 49 on the 1,000 sample images).

    python tests/bench/sql_speed.py [--maps 200000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch
from torch.nn import functional as F

from labelmill.models.label_encoding import LOGIT_STEP, TopCells, encode_maps
from labelmill.models.label_pooling import ABSENT_SHARE
from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, MAP_COLUMNS, LabelMapMetadata
from labelmill.schemas.versions import Lineage
from labelmill.tasks.relabel.shards import LABEL_MAPS_LAYOUT
from labelmill.tasks.store import open_store

CLASSES, CANDIDATES, GRID, TOP_K, PART_ROWS = 1000, 300, 15, 5, 2048
QUERIES = {
    "top classes by cells": "SELECT class_name, sum(cells) AS cells FROM bench.label_classes GROUP BY ALL "
    "ORDER BY cells DESC, class_name LIMIT 5",
    "images whose pooled class is not their label": "SELECT count(*) FROM bench.label_maps WHERE pooled_class <> label",
    "images where a class leads at least 20 cells": "SELECT count(*) FROM bench.label_classes "
    "WHERE class_id = 7 AND cells >= 20",
}


def draw_rows() -> pa.Table:
    """Draw one part's rows."""
    torch.manual_seed(0)
    columns: dict[str, list[object]] = {name: [] for name in MAP_COLUMNS}
    for _ in range(0, PART_ROWS, 64):
        fields = F.interpolate(torch.randn(64, CANDIDATES, 5, 5), (GRID, GRID), mode="bicubic") * 2
        fields += torch.randn(64, CANDIDATES, GRID, GRID) * 0.8 + torch.randn(64, CANDIDATES, 1, 1)
        fields[:, 0, :, : GRID // 2] += 8  # an object, which leads where it stands
        logits, places = fields.permute(0, 2, 3, 1).topk(TOP_K, dim=-1)
        candidates = torch.rand(64, CLASSES).topk(CANDIDATES).indices
        ids = candidates[:, None, None, :].expand(-1, GRID, GRID, -1).gather(3, places)
        top = TopCells(
            ids=ids, logits=logits.double(), log_sum_exp=logits.double().logsumexp(-1) + 1,
            class_sums=torch.randn(64, CLASSES, dtype=torch.float64) * 100,
        )  # fmt: skip
        for encoded in encode_maps(top, step=LOGIT_STEP):
            for name, values in columns.items():
                values.append(getattr(encoded, name))
    given = {
        **columns,
        "image_id": [f"{number}.jpg" for number in range(PART_ROWS)],
        "split": ["train"] * PART_ROWS,
        "status": ["done"] * PART_ROWS,
        "label": [number % CLASSES for number in range(PART_ROWS)],
        "pooled_class": [number * 7 % CLASSES for number in range(PART_ROWS)],
    }
    rows = [pa.array(given.get(f.name, [None] * PART_ROWS), f.type) for f in LABEL_MAPS_SCHEMA]
    return pa.table(rows, schema=LABEL_MAPS_SCHEMA)


def main() -> None:
    """Read the command line, write the store, ask and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    names = tuple(ClassName(name=f"class {number}") for number in range(CLASSES))
    metadata = LabelMapMetadata(
        grid=(GRID, GRID), top_k=TOP_K, input_size=(475, 475), logit_step=LOGIT_STEP, num_classes=CLASSES,
        classes=ClassList(source="drawn", classes=names), temperature=1.0, absent_share=ABSENT_SHARE,
        calibration={}, label_match={}, teacher={},
    )  # fmt: skip
    lineage = Lineage(code="", flow="", parameters={}, parameters_digest="", inputs={}, time="", host="")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder) / "store"), create=True)
        table, rows = store.table("bench.label_maps"), draw_rows()
        count = -(-options.maps // PART_ROWS)
        parts = [table.write_part(rows, key=f"{number:016d}", layout=LABEL_MAPS_LAYOUT) for number in range(count)]
        table.replace(parts, schema=LABEL_MAPS_SCHEMA, metadata=metadata.model_dump(mode="json"), lineage=lineage)
        listed, leading = (sum(map(len, rows[name].to_pylist())) / PART_ROWS for name in ("absent", "classes"))
        print(
            f"\n{count * PART_ROWS:,} maps in {count} parts, {parts[0].bytes / PART_ROWS:,.0f} bytes and "
            f"{listed:.0f} classes a map, {leading:.0f} of them leading, {options.rounds} rounds, medians\n"
        )
        print("| query | seconds |\n|---|---|")
        with store.connect() as connection:
            for name, query in QUERIES.items():
                times = []
                for turn in range(options.rounds + 1):
                    start = time.perf_counter()
                    connection.sql(query).fetchall()
                    if turn:
                        times.append(time.perf_counter() - start)
                print(f"| {name} | {statistics.median(times):.3f} |", flush=True)


if __name__ == "__main__":
    main()
