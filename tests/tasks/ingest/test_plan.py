"""What an ingest must read again, and which class list it uses."""

import os

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import FileKind, ListedFile
from labelmill.tasks.ingest.plan import (
    IngestPlan,
    make_image_ids,
    plan_ingest,
    refuse_shared_ids,
    settle_classes,
    settle_labels,
)

COLUMNS = {
    "image_id": pa.string(),
    "bytes": pa.int64(),
    "mtime_ns": pa.int64(),
    "label": pa.int32(),
    "reason": pa.string(),
}


def listed(path, *, size=10, mtime_ns=100, kind=FileKind.FILE):
    return ListedFile(path=path, size=size, mtime_ns=mtime_ns, kind=kind)


def table(*rows, id_prefix="", width=40):
    """Rows of files, which lie at their paths, that an ingest has read."""
    schema = pa.schema(
        [*COLUMNS.items(), ("uri", pa.string()), ("labels", pa.list_(pa.int32())), ("width", pa.int32())]
    )
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    read = [{**row, "uri": row["image_id"].removeprefix(id_prefix), "width": width} for row in named]
    return pa.Table.from_pylist(read, schema=schema)


def plan(files, labels, rows, *, id_prefix="", labels_required=True, rehash=False, width=40):
    known = table(*rows, id_prefix=id_prefix, width=width)
    return plan_ingest(files, labels, known, id_prefix=id_prefix, labels_required=labels_required, rehash=rehash)


def class_list(*names):
    return ClassList(classes=tuple(ClassName(name=name) for name in names), source="test")


def test_plan_ingest_all_four_outcomes_are_told_apart():
    files = [listed("a"), listed("b", size=11), listed("c")]
    rows = [("b", 10, 100, 0, None), ("z", 10, 100, 0, None), ("a", 10, 100, 0, None), ("y", 1, 1, 0, None)]
    assert plan(files, [0, 0, 0], rows) == IngestPlan(
        unchanged=("a",), changed=("b",), added=("c",), removed=("y", "z")
    )


def test_plan_ingest_row_that_was_never_read_is_changed():
    rows = [("a", 10, 100, 0, None), ("b", 10, 100, 0, "corrupt")]
    found = plan([listed("a"), listed("b")], [0, 0], rows, width=None)
    assert (found.changed, found.unchanged) == (("a",), ("b",))


def test_plan_ingest_rejection_found_at_listing_is_changed_until_the_row_has_it():
    file = ListedFile(path="a", size=10, mtime_ns=100, kind=FileKind.FILE, rejected=(Reason.CORRUPT, "no JPEG"))
    assert plan([file], [0], [("a", 10, 100, 0, None)]).changed == ("a",)
    assert plan([file], [0], [("a", 10, 100, 0, "corrupt")]).unchanged == ("a",)


LOST = {"size": None, "mtime_ns": None, "kind": FileKind.BROKEN_LINK}
BAD_NAME = {"kind": FileKind.BAD_NAME}
NOT_UTF8 = os.fsdecode(b"\xe9")


@pytest.mark.parametrize(
    ("file", "label", "row", "options"),
    [
        pytest.param(listed("a", size=11), 0, ("a", 10, 100, 0, None), {}, id="size"),
        pytest.param(listed("a", mtime_ns=101), 0, ("a", 10, 100, 0, None), {}, id="time"),
        pytest.param(listed("a", mtime_ns=99), 0, ("a", 10, 100, 0, None), {}, id="older-time"),
        pytest.param(listed("a"), 1, ("a", 10, 100, 0, None), {}, id="label"),
        pytest.param(listed("a"), None, ("a", 10, 100, 0, None), {}, id="label-gone"),
        pytest.param(listed("a"), 0, ("a", 10, 100, 0, "missing"), {}, id="was-missing"),
        pytest.param(listed("a"), 0, ("a", 10, 100, 0, "unreadable"), {}, id="was-unreadable"),
        pytest.param(listed("a"), None, ("a", 10, 100, None, None), {}, id="label-now-required"),
        pytest.param(
            listed("a"), None, ("a", 10, 100, None, "no_label"), {"labels_required": False}, id="no-longer-required"
        ),
        pytest.param(listed("a"), 0, ("a", None, None, 0, "broken_link"), {}, id="link-mended"),
        pytest.param(listed("a", **LOST), 0, ("a", None, None, 0, "not_a_file"), {}, id="pipe-now-broken-link"),
        pytest.param(listed("a", **BAD_NAME), 0, ("a", 10, 100, 0, None), {}, id="now-bad-name"),
        pytest.param(listed("a"), 0, ("a", 10, 100, 0, "bad_name"), {}, id="was-bad-name"),
        pytest.param(listed("a"), 0, ("a", 10, 100, 0, None), {"rehash": True}, id="rehash"),
    ],
)
def test_plan_ingest_file_or_row_that_needs_reading_is_changed(file, label, row, options):
    assert plan([file], [label], [row], **options).changed == ("a",)


@pytest.mark.parametrize(
    ("file", "label", "row"),
    [
        pytest.param(listed("a"), 0, ("a", 10, 100, 0, None), id="done"),
        pytest.param(listed("a"), 0, ("a", 10, 100, 0, "truncated"), id="truncated"),
        pytest.param(listed("a"), None, ("a", 10, 100, None, "no_label"), id="no-label"),
        pytest.param(listed("a", **LOST), 0, ("a", None, None, 0, "broken_link"), id="broken-link"),
        pytest.param(listed("a", **LOST), None, ("a", None, None, None, "broken_link"), id="link-without-label"),
        pytest.param(listed(NOT_UTF8, **BAD_NAME), 0, (r"\xe9", 10, 100, 0, "bad_name"), id="bad-name"),
        pytest.param(listed(NOT_UTF8, **BAD_NAME), None, (r"\xe9", 10, 100, None, "bad_name"), id="bad-name-no-label"),
    ],
)
def test_plan_ingest_same_file_and_lasting_reason_is_unchanged(file, label, row):
    assert plan([file], [label], [row]).unchanged == (row[0],)


def test_plan_ingest_prefix_belongs_to_the_id():
    assert plan([listed("a")], [0], [("a", 10, 100, 0, None)], id_prefix="val/") == IngestPlan(
        unchanged=(), changed=(), added=("val/a",), removed=("a",)
    )


@given(
    files=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2)),
    rows=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2)),
    rehash=st.booleans(),
)
def test_plan_ingest_any_change_places_every_id_once(files, rows, rehash):
    result = plan(
        [listed(path, size=size) for path, size in files.items()],
        [0] * len(files),
        [(path, size, 100, 0, None) for path, size in rows.items()],
        rehash=rehash,
    )
    assert sorted((*result.unchanged, *result.changed, *result.added)) == sorted(files)
    assert set(result.removed) == set(rows) - set(files)
    assert set(result.added) == set(files) - set(rows)
    same = {path for path in files if path in rows and rows[path] == files[path]}
    assert set(result.unchanged) == (set() if rehash else same)


def test_make_image_ids_escaped_name_that_meets_another_raises():
    with pytest.raises(BadInput, match=r"same id .*\\xe9"):
        make_image_ids([listed(NOT_UTF8), listed(r"\xe9")], id_prefix="")


def test_settle_classes_first_ingest_takes_what_is_found():
    assert settle_classes(class_list("b", "a"), None, owner="") == class_list("b", "a")


def test_settle_classes_known_classes_keep_the_fixed_list():
    fixed = class_list("a", "b", "c")
    assert settle_classes(class_list("c", "a"), fixed, owner="") is fixed


def test_settle_classes_same_wnid_with_other_words_is_known():
    fixed = ClassList(classes=(ClassName(name="tench", wnid="n01440764"),), source="devkit")
    found = ClassList(classes=(ClassName(name="n01440764", wnid="n01440764"),), source="folders")
    assert settle_classes(found, fixed, owner="") is fixed


def test_settle_classes_strange_classes_raise_with_count_names_and_advice():
    strange = [f"s{number}" for number in range(8)]
    with pytest.raises(BadInput) as caught:
        settle_classes(class_list("a", *strange), class_list("a", "b"), owner="dataset pets")
    assert "8 of 9 classes are not among the 2 of dataset pets: s0, s1, s2, s3, s4, …" in str(caught.value)
    assert "another dataset" in str(caught.value)
    assert "--devkit" in str(caught.value)


def test_settle_classes_name_with_terminal_codes_is_shown_escaped():
    with pytest.raises(BadInput, match=r": '\\x1b\[31mred\\n'; "):
        settle_classes(class_list("\x1b[31mred\n"), class_list("a"), owner="dataset pets")


def test_settle_labels_later_split_uses_ids_of_the_fixed_list():
    labels = SourceLabels(classes=class_list("b", "c"), keys=["c", None, "b"], required=True)
    fixed = class_list("a", "b", "c")
    assert settle_labels(labels, fixed, owner="") == (fixed, [2, None, 1])
    assert settle_labels(labels, None, owner="") == (labels.classes, [1, None, 0])


def test_settle_labels_proposed_class_without_files_need_not_be_fixed():
    labels = SourceLabels(classes=class_list("a", "b", "never used"), keys=["b"], required=True)
    assert settle_labels(labels, class_list("b"), owner="")[1] == [0]


def others(*pairs):
    return pa.table({"image_id": [p[0] for p in pairs], "split": [p[1] for p in pairs]})


def test_refuse_shared_ids_names_examples_splits_and_prefix():
    with pytest.raises(
        BadInput, match=r"^id_prefix: 2 image ids are already in split test, train .*: a, b; .*--id-prefix"
    ):
        refuse_shared_ids(["a", "b", "c"], others(("a", "train"), ("b", "test"), ("z", "train")))


def test_refuse_shared_ids_disjoint_splits_pass():
    refuse_shared_ids(["val/a"], others(("a", "train")))
