"""The store's commands as typed at a shell."""

import csv
import io
import json
import subprocess
import sys

import duckdb
import pyarrow as pa
import pytest

from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA
from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store

HARD = """SELECT 'nan'::FLOAT AS "nan", 'inf'::DOUBLE AS inf, NULL AS nothing, 'a"b,
c' AS text, DATE '2020-02-29' AS day, TIMESTAMP '2020-02-29 12:00:00' AS time, [1, NULL, 3] AS list,
{'x': [{'y': 'nan'::DOUBLE}]} AS nested, MAP {1: 'é'} AS map, '\\x01\\xFF'::BLOB AS bytes, 1.25 AS number,
10::HUGEINT ** 2 AS big, true AS yes, 1 AS twice, 2 AS twice"""


@pytest.fixture
def store(tmp_path):
    """A store with imagenet.things, version 1 of two rows and version 2 of four."""
    store = open_store(tmp_path / "store", create=True)
    table = store.table("imagenet.things")
    lineage = Lineage(
        code="0", flow="test", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host="h",
        teacher={"name": "net"},
    )  # fmt: skip
    for values in ([0, 1], [10, 11]):
        rows = pa.table({"a": values})
        table.append([table.write_part(rows, key="k")], schema=rows.schema, metadata={}, lineage=lineage)
    return store


def test_versions_command_lists_tables_and_versions(run, store):
    code, out, err = run("versions", store.root)
    assert (code, err) == (0, "")
    header, row = out.splitlines()
    assert header.split()[:4] == ["table", "version", "rows", "parts"]
    assert row.split()[:4] == ["imagenet.things", "2", "4", "2"]
    assert "test net" in row
    code, out, _ = run("versions", store.root, "imagenet.things")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["1", "2"]


def test_versions_command_empty_store_says_so(run, tmp_path):
    assert run("versions", tmp_path) == (0, f"{tmp_path}: no tables yet\n", "")


BAD = {
    "no folder": (["versions", "{root}/none"], "no such folder"),
    "remote": (["sql", "ftp://x/y", "SELECT 1"], "ftp:// is not supported"),
    "no table": (["versions", "{root}", "imagenet.images"], "tables: imagenet.things"),
    "bad name": (["versions", "{root}", "things"], "expected dataset.table"),
    "verify no table": (["verify", "{root}", "imagenet.images"], "no such table"),
    "verify no version": (["verify", "{root}", "imagenet.things", "--version", "9"], "versions: 1, 2"),
    "delete no version": (["delete", "{root}", "imagenet.things", "3"], "version 3 does not exist"),
    "delete traversal": (["delete", "{root}", "../x.y", "1"], "table name"),
    "gc nan": (["gc", "{root}", "--resume-days", "nan"], "expected 0 or more"),
    "gc negative": (["gc", "{root}", "--grace-hours", "-1"], "expected 0 or more"),
    "no query": (["sql", "{root}"], "expected one query, got none"),
    "empty query": (["sql", "{root}", ""], "expected one query, got none"),
    "only a comment": (["sql", "{root}", "/* SELECT 1 */ ; "], "expected one query, got none"),
    "two queries": (["sql", "{root}", "SELECT 1; SELECT 2"], "expected one query, got 2"),
    "no SQL": (["sql", "{root}", "selec 1"], "Parser Error"),
    "no view": (["sql", "{root}", "SELECT * FROM imagenet.nothing"], "does not exist"),
    "no column": (["sql", "{root}", "SELECT b FROM imagenet.things"], "Binder Error"),
    "write": (["sql", "{root}", "DROP VIEW imagenet.things"], "expected SELECT, got DROP"),
    "late error": (["sql", "{root}", "SELECT error('late')", "--format", "csv"], "late"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_main_wrong_parameters_say_so_in_one_line_and_exit_2(run, store, arguments, message):
    code, out, err = run(*(argument.format(root=store.root) for argument in arguments))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("labelmill: error: ")
    assert message in err
    assert not out.replace("error('late')", "").strip()


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["sql"], ["delete", ".", "a.b", "x"], ["sql", ".", "SELECT 1", "--format", "xml"]]
)
def test_main_arguments_that_do_not_parse_exit_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "labelmill" in err


def test_sql_command_table_shows_rows(run, store):
    code, out, err = run("sql", store.root, "SELECT sum(a) AS total FROM imagenet.things")
    assert (code, err) == (0, "")
    assert "total" in out
    assert "22" in out


def test_sql_command_json_holds_everything(run, store):
    code, out, _ = run("sql", store.root, HARD, "--format", "json")
    (row,) = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert code == 0
    assert row == {
        "nan": None,
        "inf": None,
        "nothing": None,
        "text": 'a"b,\nc',
        "day": "2020-02-29",
        "time": "2020-02-29 12:00:00",
        "list": [1, None, 3],
        "nested": {"x": [{"y": None}]},
        "map": {"1": "é"},
        "bytes": "01ff",
        "number": 1.25,
        "big": 100,
        "yes": True,
        "twice": 1,
        "twice_1": 2,
    }


def test_sql_command_csv_reads_back(run, store):
    code, out, _ = run("sql", store.root, HARD, "--format", "csv")
    names, cells = csv.reader(io.StringIO(out))
    assert code == 0
    row = dict(zip(names[:-2], cells[:-2], strict=True))
    assert (row["nothing"], row["text"], row["day"], row["yes"]) == ("", 'a"b,\nc', "2020-02-29", "true")
    assert (json.loads(row["list"]), json.loads(row["nested"])) == ([1, None, 3], {"x": [{"y": None}]})
    assert (row["bytes"], row["nan"], names[-2:]) == ("01ff", "nan", ["twice", "twice"])


@pytest.mark.parametrize(("form", "expected"), [("csv", "a\n"), ("json", "[\n]\n")])
def test_sql_command_no_rows_is_still_a_whole_answer(run, store, form, expected):
    assert run("sql", store.root, "SELECT 1 AS a WHERE false", "--format", form) == (0, expected, "")


@pytest.mark.parametrize("form", ["csv", "json"])
def test_sql_command_many_rows_are_all_there(run, store, form):
    _, out, _ = run("sql", store.root, "SELECT range AS n FROM range(5001)", "--format", form)
    rows = json.loads(out) if form == "json" else list(csv.DictReader(io.StringIO(out)))
    assert [int(row["n"]) for row in rows] == list(range(5001))


def test_sql_command_views_text_answers_in_a_plain_duckdb_elsewhere(run, store, monkeypatch, tmp_path):
    monkeypatch.chdir(store.root.parent)
    code, text, _ = run("sql", "store", "--views")
    assert code == 0
    monkeypatch.chdir("/")
    plain = duckdb.connect()
    plain.execute(text)
    for view in ("things", "things_v1"):
        query = f"SELECT * FROM imagenet.{view} ORDER BY 1"
        assert plain.execute(query).fetchall() == store.connect().execute(query).fetchall()


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_sql_command_reader_that_leaves_gets_no_traceback(store, form):
    command = [sys.executable, "-m", "labelmill", "sql", str(store.root), "FROM range(300000)", "--format", form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) in {0, 1}


def test_verify_command_damage_is_told_and_exits_1(run, store):
    assert run("verify", store.root, "imagenet.things")[::2] == (0, "")
    table = store.table("imagenet.things")
    table.part_path(table.version().parts[1]).unlink()
    code, out, err = run("verify", store.root, "imagenet.things")
    assert code == 1
    assert out.endswith("missing\n")
    assert err == "imagenet.things v2: 1 problems in 2 parts\n"
    assert run("verify", store.root, "imagenet.things", "--version", 1)[0] == 0


@pytest.fixture
def labelled(tmp_path, make_images, ingest, relabel):
    """A store with label maps of five images by the tiny teacher; return (store, folder of the images)."""
    source = make_images(tmp_path / "train", {"n01443537": 3, "n01484850": 2})
    ingest(source, tmp_path / "labelled")
    relabel(tmp_path / "labelled")
    return tmp_path / "labelled", source


def test_verify_command_reinfer_prints_the_agreement_and_exits_0(run, labelled):
    code, out, err = run("verify", labelled[0], "imagenet.label_maps", "--reinfer", 9, "--workers", 1)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith(": as written")
    assert lines[1].startswith("imagenet.label_maps v1: 5 of 5 maps made again by test_efficientnet (fp32), ")
    assert lines[2].split() == ["agreement", "sample", "worst", "image", "expected"]
    assert lines[3].split()[:8] == ["cells", "with", "the", "same", "top", "class", "100.0", "%"]
    assert lines[-1] == "imagenet.label_maps v1: agrees with its teacher"
    assert "5 of 5 images relabelled" in err


def test_verify_command_reinfer_tells_each_problem_in_a_line_and_exits_1(run, labelled):
    store, source = labelled
    table = open_store(store).table("imagenet.label_maps")
    version = table.version()
    rows = table.read(version, LABEL_MAPS_SCHEMA.names).to_pylist()
    scaled = [{**row, "top": [9 * v for v in row["top"]]} for row in rows]
    part = table.write_part(pa.Table.from_pylist(scaled, LABEL_MAPS_SCHEMA), key="wrong")
    table.replace([part], schema=LABEL_MAPS_SCHEMA, metadata=version.metadata, lineage=version.lineage)
    (source / "n01484850" / "n01484850_1.JPEG").unlink()
    code, out, err = run("verify", store, "imagenet.label_maps", "--reinfer", 5)
    assert code == 1
    assert "imagenet.label_maps v2: 1 of 5 images left out: 1 missing\n" in out
    assert "imagenet.label_maps v2: logits: they differ by " in out
    assert out.splitlines()[-1].startswith("imagenet.label_maps v2: the top classes agree and the numbers do not")
    assert err.endswith("problems in 4 relabelled images\n")
    assert run("verify", store, "imagenet.label_maps", "--reinfer", 5, "--version", 1)[0] == 0


def test_verify_command_damaged_files_are_not_relabelled(run, labelled):
    table = open_store(labelled[0]).table("imagenet.label_maps")
    table.part_path(table.version().parts[0]).write_bytes(b"")
    code, out, err = run("verify", labelled[0], "imagenet.label_maps", "--reinfer", 5)
    assert (code, err) == (1, "imagenet.label_maps v1: 1 problems in 1 parts\n")
    assert "made again" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--reinfer", 0], "--reinfer: expected 1 image or more, got 0", id="none"),
        pytest.param(["--reinfer", -3], "--reinfer: expected 1 image or more, got -3", id="less than none"),
        pytest.param(["--reinfer", 1, "--workers", -1], "--workers: expected 0 to 256, got -1", id="workers"),
        pytest.param(["--weights", "w.pth"], "--weights: only with --reinfer N", id="weights alone"),
        pytest.param(["--reinfer", 1], "expected a table of label maps", id="other table"),
    ],
)
def test_verify_command_reinfer_options_that_do_not_fit_exit_2(run, store, options, message):
    code, out, err = run("verify", store.root, "imagenet.things", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert "made again" not in out


@pytest.mark.parametrize("command", [["verify", "imagenet.things"], ["sql", "SELECT 1"], ["versions"], ["gc"]])
def test_main_damaged_version_file_is_named_in_one_line_and_exits_1(run, store, command):
    (store.root / "imagenet/things/versions/000002.json").write_text("{}")
    code, _, err = run(command[0], store.root, *command[1:])
    assert (code, err.count("\n")) == (1, 1)
    assert "000002.json" in err


def test_delete_and_gc_commands_remove_what_only_that_version_lists(run, store):
    assert run("delete", store.root, "imagenet.things", 2, "--reason", "wrong")[0] == 0
    assert run("delete", store.root, "imagenet.things", 2)[0] == 2
    _, out, _ = run("gc", store.root, "--grace-hours", 0, "--dry-run")
    assert "would remove 1 files" in out
    assert len(list((store.root / "imagenet/things/parts").iterdir())) == 2
    assert "removed 0 files" in run("gc", store.root)[1]
    assert "removed 1 files" in run("gc", store.root, "--grace-hours", 0)[1]
    assert run("verify", store.root, "imagenet.things")[0] == 0


def test_sql_command_query_that_is_no_text_is_refused(run, store):
    code, _, err = run("sql", store.root, "SELECT '\udcff'")
    assert code == 2
    assert "sql: expected a query in valid UTF-8" in err
