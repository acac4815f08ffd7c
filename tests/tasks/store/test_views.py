"""SQL views against the arrays that they show."""

import shutil

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from labelmill.models.label_encoding import encode_maps, top_cells
from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, MAP_COLUMNS, LabelMapMetadata
from labelmill.tasks.relabel.shards import LABEL_MAPS_LAYOUT
from labelmill.tasks.store import open_store
from labelmill.tasks.store.views import view_statements

STEP = 1 / 32
GRID = (3, 5)
NAMES = ("it's", 'a "dog"', "Käse, 猫", "", "a;b", "--", "%s", *(f"class {n}" for n in range(7, 12)))
CLASSES = ClassList(classes=tuple(ClassName(name=name) for name in NAMES), source="test")


def metadata(top_k, *, classes=CLASSES):
    return LabelMapMetadata(
        grid=GRID, top_k=top_k, input_size=(96, 160), logit_step=STEP, num_classes=len(NAMES), classes=classes,
        temperature=1.0, absent_share=1.0, calibration={}, label_match={}, teacher={"name": "t"},
    ).model_dump(mode="json")  # fmt: skip


def map_rows(top, start, stop, rejected):
    columns = {field.name: [] for field in LABEL_MAPS_SCHEMA}
    for row in range(start, stop):
        out = row in rejected
        encoded = None if out else encode_maps(top, step=STEP)[row]
        known = {
            "image_id": f"img{row}", "split": "train", "status": "rejected" if out else "done",
            "reason": "empty" if out else None, "detail": None, "label": row % 12 if row % 2 else None,
            "pooled_class": None if out else row % 12, "pooled_prob": None if out else 0.5,
        }  # fmt: skip
        for name, column in columns.items():
            column.append(getattr(encoded, name, None) if name in MAP_COLUMNS else known[name])
    return pa.table([pa.array(columns[f.name], f.type) for f in LABEL_MAPS_SCHEMA], schema=LABEL_MAPS_SCHEMA)


@pytest.fixture(params=[1, 3, 12], ids=lambda k: f"k{k}")
def labelled(request, store, lineage):
    """A label maps version of three parts over seven images, two of them rejected, and the teacher's arrays."""
    torch.manual_seed(0)
    top = top_cells(torch.randn(7, len(NAMES), *GRID) * 4 - 7, request.param)
    table = store.table("select.label_maps")
    parts = [
        table.write_part(map_rows(top, start, stop, {0, 4}), key=f"{9 - start:016d}", layout=LABEL_MAPS_LAYOUT)
        for start, stop in ((0, 3), (3, 5), (5, 7))
    ]
    table.replace(parts, schema=LABEL_MAPS_SCHEMA, metadata=metadata(request.param), lineage=lineage)
    return top


def test_label_cells_every_cell_and_rank_is_what_the_teacher_said(store, labelled):
    top, (height, width), top_k = labelled, GRID, labelled.ids.shape[-1]
    found = store.connect().execute('SELECT * FROM "select".label_cells ORDER BY image_id, y, x, rank')
    names = ["image_id", "y", "x", "rank", "class_id", "class_name", "logit", "prob"]
    assert [column[0] for column in found.description] == names
    rows = found.fetchall()
    kept = [1, 2, 3, 5, 6]
    places = [(f"img{i}", y, x, r) for i in kept for y in range(height) for x in range(width) for r in range(top_k)]
    assert [row[:4] for row in rows] == places
    assert [row[4] for row in rows] == top.ids[kept].flatten().tolist()
    assert [row[5] for row in rows] == [NAMES[row[4]] for row in rows]
    logits = np.array([row[6] for row in rows])
    assert np.abs(logits - top.logits[kept].numpy().ravel()).max() <= STEP / 2 + 1e-5
    exact = (top.logits - top.log_sum_exp[..., None])[kept].numpy().ravel()
    assert np.abs(np.log([row[7] for row in rows]) - exact).max() <= STEP + 1e-5


def test_label_classes_cells_count_the_cells_that_a_class_leads(store, labelled):
    rows = store.connect().execute('SELECT * FROM "select".label_classes').fetchall()
    for image in range(7):
        leaders = np.bincount(labelled.ids[image, :, :, 0].flatten(), minlength=len(NAMES))
        listed = set() if image in {0, 4} else set(labelled.ids[image, :, :, 0].flatten().tolist())
        assert {row[1:] for row in rows if row[0] == f"img{image}"} == {(c, NAMES[c], leaders[c]) for c in listed}
    assert len({row[:2] for row in rows}) == len(rows)


def test_label_maps_rows_are_numbered_in_version_order_with_names(store, labelled):
    found = store.connect().execute('SELECT * FROM "select".label_maps ORDER BY "row"')
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    assert [(row["row"], row["image_id"]) for row in rows] == [(n, f"img{n}") for n in range(7)]
    assert [row["status"] for row in rows] == ["rejected" if n in {0, 4} else "done" for n in range(7)]
    assert [row["label_name"] for row in rows] == [NAMES[n] if n % 2 else None for n in range(7)]
    assert [row["pooled_name"] for row in rows] == [None if n in {0, 4} else NAMES[n] for n in range(7)]
    assert not set(MAP_COLUMNS) & set(names)


def test_label_maps_teacher_without_class_list_has_null_names(store, lineage):
    top = top_cells(torch.randn(1, len(NAMES), *GRID), 2)
    table = store.table("d.label_maps_b")
    part = table.write_part(map_rows(top, 0, 1, set()), key="k")
    table.replace([part], schema=LABEL_MAPS_SCHEMA, metadata=metadata(2, classes=None), lineage=lineage)
    connection = store.connect()
    for view in ("label_cells_b", "label_classes_b"):
        assert connection.execute(f"SELECT DISTINCT class_name FROM d.{view}").fetchall() == [(None,)]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_row_many_parts_and_row_groups_any_threads_is_the_version_order(store, lineage, threads):
    table = store.table("d.things")
    schema = pa.schema({"a": pa.int64()})
    sizes = [300_000, 1, 0, 5, 150_000]
    starts = np.cumsum([0, *sizes])
    parts = [
        table.write_part(pa.table({"a": np.arange(start, start + size)}, schema=schema), key=f"{size % 7:016d}")
        for start, size in zip(starts, sizes, strict=False)
    ]
    table.replace(parts, schema=schema, metadata={}, lineage=lineage)
    connection = store.connect(read_only=False)
    connection.execute(f"SET threads = {threads}")
    query = 'SELECT count(*), count(*) FILTER ("row" = a), min("row"), max("row") FROM d.things'
    assert connection.execute(query).fetchone() == (450_006, 450_006, 0, 450_005)


def test_images_view_joins_class_names(store, lineage):
    rows = pa.table({"image_id": ["a", "b", "c"], "label": pa.array([1, None, 2], pa.int32())})
    table = store.table("d.images")
    part = table.write_part(rows, key="k")
    facts = {"kind": "images", "roots": {}, "classes": CLASSES.model_dump(mode="json")}
    table.replace([part], schema=rows.schema, metadata=facts, lineage=lineage)
    table.replace([part], schema=rows.schema, metadata={**facts, "classes": None}, lineage=lineage)
    connection = store.connect()
    assert connection.execute("SELECT * FROM d.images_v1 ORDER BY 1").fetchall() == [
        (0, "a", 1, NAMES[1]),
        (1, "b", None, None),
        (2, "c", 2, NAMES[2]),
    ]
    assert connection.execute("SELECT DISTINCT class_name FROM d.images").fetchall() == [(None,)]


def test_view_statements_versions_have_views_and_deleted_ones_have_none(store, table, add):
    add(table, 7, operation="replace")
    table.delete(2)

    def views():
        found = store.connect().execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1")
        return [name for (name,) in found.fetchall()]

    assert views() == ["things", "things_v1", "things_v3"]
    assert store.connect().execute("SELECT a FROM imagenet.things").fetchall() == [(7,)]
    assert store.connect().execute("SELECT a FROM imagenet.things_v1 ORDER BY a").fetchall() == [(0,), (1,)]
    table.delete(3)
    assert store.connect().execute("SELECT a FROM imagenet.things ORDER BY a").fetchall() == [(0,), (1,)]
    table.delete(1)
    assert views() == []


PATHS = [
    "a b",
    "q'u\"o",
    "ünï 猫",
    "br[a]ck",
    "st*r",
    "wh?t",
    "**",
    "[!a]",
    "[",
    "{a,b}",
    "run=5",
    "back\\slash",
    "a;b",
]


@pytest.mark.parametrize("name", [*PATHS, "new\nline", "--", "$x", "~", "%20", "#"])
def test_view_statements_any_store_path_is_taken_literally(tmp_path, add, name, monkeypatch):
    store = open_store(tmp_path / name / "s", create=True)
    add(store.table("d.things"), 1, 2)
    add(store.table("d.things"), 3)
    for other in ("brack", "star", "what", "wh*t", "xx", "b", "x/y"):  # what a pattern would match instead
        shutil.copytree(store.root, tmp_path / other / "s")
        for part in (tmp_path / other).rglob("*.parquet"):
            pq.write_table(pa.table({"a": [666]}), part)
    expected = [(0, 1), (1, 2), (2, 3)]
    assert store.connect().execute("SELECT * FROM d.things ORDER BY 1").fetchall() == expected
    plain = duckdb.connect()
    monkeypatch.chdir("/")
    plain.execute("".join(f"{statement};\n" for statement in view_statements(store)))
    assert plain.execute("SELECT * FROM d.things ORDER BY 1").fetchall() == expected


def test_view_statements_odd_columns_keep_their_names(store, lineage):
    rows = pa.table({'a "b"': [1], "select": [2], "Row": [3], "filename": [4]})
    table = store.table("d.things")
    table.replace([table.write_part(rows, key="k")], schema=rows.schema, metadata={}, lineage=lineage)
    found = store.connect().execute("SELECT * FROM d.things")
    assert [column[0] for column in found.description] == ['a "b"', "select", "Row", "filename"]
    assert found.fetchall() == [(1, 2, 3, 4)]


def test_view_statements_two_label_maps_tables_have_views_each(store, lineage):
    top = top_cells(torch.randn(2, len(NAMES), *GRID), 2)
    for name in ("label_maps", "label_maps_b", "soft"):
        table = store.table(f"d.{name}")
        part = table.write_part(map_rows(top, 0, 2, set()), key="k")
        table.replace([part], schema=LABEL_MAPS_SCHEMA, metadata=metadata(2), lineage=lineage)
    connection = store.connect()
    for view in ("label_cells", "label_cells_b", "label_cells_soft", "label_classes_soft_v1", "soft", "label_maps_b"):
        assert connection.execute(f"SELECT count(DISTINCT image_id) FROM d.{view}").fetchone() == (2,)


def test_views_of_maps_in_an_earlier_form_leave_out_what_they_cannot_decode(tmp_path, lineage):
    """A store with one such version can still be asked about everything else."""
    store = open_store(tmp_path / "old", create=True)
    table = store.table("old.label_maps")
    rows = pa.table({"image_id": ["a"], "label": pa.array([1], pa.int32()), "pooled_class": pa.array([1], pa.int32())})
    part = table.write_part(rows, key="0" * 16)
    table.replace([part], schema=rows.schema, metadata=metadata(3), lineage=lineage)
    with store.connect() as sql:
        assert sql.execute("SELECT image_id, label FROM old.label_maps").fetchall() == [("a", 1)]
        views = sql.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'old'").fetchall()
    assert {name for (name,) in views} == {"label_maps", "label_maps_v1"}
