"""Tables of paths and labels."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.tasks.annotated_dataset import make_jpeg

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestTableParameters


@pytest.fixture
def two(dataset):
    for name in ("a.jpg", "b.jpg"):
        (dataset.images / name).write_bytes(make_jpeg())
    return dataset


def labels_of(dataset):
    return {row["image_id"]: row["label"] for row in dataset.rows("images")}


SAME = {
    "comma": ("path,label\na.jpg,dog\nb.jpg,cat\n", "labels.csv"),
    "byte order mark": ("\ufeffpath,label\na.jpg,dog\nb.jpg,cat\n", "labels.csv"),
    "tab": ("path\tlabel\na.jpg\tdog\nb.jpg\tcat\n", "labels.tsv"),
    "semicolon in a csv": ("path;label\r\na.jpg;dog\r\nb.jpg;cat\r\n", "labels.csv"),
    "other columns": ('id,label,"path"\n1,dog,a.jpg\n2,"cat","b.jpg"\n', "labels.csv"),
}


@pytest.mark.parametrize(("text", "name"), SAME.values(), ids=SAME)
def test_ingest_table_of_any_form_gives_the_same_labels(two, text, name):
    version = two.ingest_table(text, name)
    assert labels_of(two) == {"a.jpg": 1, "b.jpg": 0}
    assert [one["name"] for one in version.metadata["classes"]["classes"]] == ["cat", "dog"]


def test_ingest_table_of_parquet_takes_lists_as_several_labels(two):
    path = two.folder / "labels.parquet"
    pq.write_table(pa.table({"file": ["a.jpg", "b.jpg"], "tags": [["x", "y"], []]}), path)
    two.ingest(
        IngestTableParameters, table=str(path), images=str(two.images), path_column="file", label_column="tags",
        label_separator="|",
    )  # fmt: skip
    assert [(row["label"], row["labels"]) for row in two.rows("images")] == [(None, [0, 1]), (None, [])]


def test_ingest_table_with_a_separator_splits_labels(two):
    two.ingest_table("path,label\na.jpg,x|y\nb.jpg,\n", label_separator="|")
    assert [row["labels"] for row in two.rows("images")] == [[0, 1], []]


def test_ingest_table_newlines_and_quotes_in_names_are_kept(two):
    name = 'two\nlines, "quoted" ü.jpg'
    (two.images / name).write_bytes(make_jpeg())
    two.ingest_table('path,label\n"two\nlines, ""quoted"" ü.jpg",dog\n')
    assert labels_of(two) == {name: 0}


def test_ingest_table_missing_files_repeated_rows_and_ragged_ones_are_counted(two):
    from collections import Counter

    from labelmill.tasks.ingest.table_file import read_labels

    text = "path,label\na.jpg,dog\na.jpg,cat\nb.jpg,cat\nb.jpg,cat\n,cat\nc.jpg\ngone.jpg,dog\n\n"
    two.ingest_table(text)
    assert labels_of(two) == {"a.jpg": None, "b.jpg": 0, "gone.jpg": 1}
    reasons = {row["image_id"]: row["reason"] for row in two.rows("images")}
    assert reasons == {"a.jpg": None, "b.jpg": None, "gone.jpg": "missing"}
    odd = Counter()
    parameters = IngestTableParameters(
        store=str(two.store), dataset="x", table=str(two.folder / "labels.csv"), images=str(two.images)
    )
    assert len(list(read_labels(parameters, odd))) == 5
    assert odd == {"rows without a path": 1, "rows with more or fewer cells than the header": 1}


REFUSED = {
    "another column": ("file,label\na.jpg,dog\n", {}, "no column 'path'; its columns: 'file', 'label'"),
    "another delimiter": ("path|label\na.jpg|dog\n", {}, "no column 'path' and no 'label'"),
    "a delimiter that was asked for": ("path,label\na.jpg,dog\n", {"delimiter": "tab"}, "no column 'path'"),
    "nothing": ("", {}, "its columns: none"),
    "no rows": ("path,label\n", {}, "no row with a path"),
    "not UTF-8": (b"path,label\n\xff.jpg,dog\n", {}, "expected UTF-8"),
    "an open quote": ('path,label\n"a.jpg,dog\n', {}, "behind line"),
}


@pytest.mark.parametrize(("text", "options", "problem"), REFUSED.values(), ids=REFUSED)
def test_ingest_table_of_another_form_is_refused_and_says_what_came(two, text, options, problem):
    with pytest.raises(BadInput, match=problem):
        two.ingest_table(text, **options)


def test_ingest_table_without_labels_needs_no_column_for_them(two):
    two.ingest_table("path\na.jpg\n", labels="none")
    assert labels_of(two) == {"a.jpg": None}


def test_ingest_table_parquet_that_is_none_is_refused(two):
    with pytest.raises(BadInput, match="not a Parquet file"):
        two.ingest_table("path,label\n", "labels.parquet")


def test_ingest_table_takes_an_exported_csv_with_whole_paths(two):
    two.ingest_table(f"path,label\n{two.images}/a.jpg,dog\n./b.jpg,cat\n/elsewhere/c.jpg,cat\n")
    assert labels_of(two) == {"/elsewhere/c.jpg": 0, "a.jpg": 1, "b.jpg": 0}
    assert {row["reason"] for row in two.rows("images")} == {None, "bad_name"}
    two.export("csv")
    again = two.ingest_table((two.folder / "out/train.csv").read_text(), split="again", id_prefix="again/")
    assert again.rows == 5
    assert {row["reason"] for row in two.rows("images") if row["split"] == "again"} == {None}


def test_ingest_table_of_a_column_given_twice_is_refused(two):
    with pytest.raises(BadInput, match=r"table: .* has several columns 'path'"):
        two.ingest_table("path,path,label\na.jpg,b.jpg,dog\n")
