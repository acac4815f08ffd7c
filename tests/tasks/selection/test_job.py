"""Selections against what a plain loop chooses, and what must hold of every one."""

import math
import tempfile
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.manifests import MANIFEST_SCHEMA
from labelmill.schemas.parameters import SelectParameters
from labelmill.tasks.selection.job import select_labels
from labelmill.tasks.selection.preflight import check_choose
from labelmill.tasks.store import open_store

from .conftest import predicted, write_labels


def select(root, **options):
    return select_labels(SelectParameters(store=str(root), dataset="pets", **options))


def manifest(root, selection):
    table = open_store(root).table(selection.version.table)
    return table.read(selection.version, MANIFEST_SCHEMA.names).to_pylist()


def copies(rows):
    return {row["image_id"]: row["copies"] for row in rows if row["copies"]}


POOL = [
    predicted("a", 0, 0.9), predicted("b", 0, 0.8), predicted("c", 0, 0.5), predicted("d", 1, 0.95),
    predicted("e", 1, 0.8), predicted("f", None, None, reason="truncated"), predicted("g", None, None),
    predicted("h", 0, 0.8),
]  # fmt: skip


def test_select_labels_every_row_is_there_with_its_reason(make_labels):
    root = make_labels(POOL)
    made = select(root, threshold=0.8, quota=2)
    rows = manifest(root, made)
    assert [row["image_id"] for row in rows] == list("abcdefgh")
    assert {row["image_id"]: row["reason"] for row in rows if row["status"] == "rejected"} == {
        "c": "below_threshold", "f": "truncated", "g": "no_prediction", "h": "over_quota",
    }  # fmt: skip
    assert made.rejected == {"below_threshold": 1, "truncated": 1, "no_prediction": 1, "over_quota": 1}
    assert (made.images, made.chosen, made.copies, made.classes, made.short) == (8, 4, 4, 2, 0)


@pytest.mark.parametrize(
    ("quota", "duplicate", "wanted"),
    [
        (1, True, {"a": 1, "d": 1}),
        (2, True, {"a": 1, "b": 1, "d": 1, "e": 1}),  # b before h, of the same confidence
        (5, True, {"a": 2, "b": 2, "h": 1, "d": 3, "e": 2}),
        (5, False, {"a": 1, "b": 1, "h": 1, "d": 1, "e": 1}),
        (None, True, {"a": 1, "b": 1, "h": 1, "d": 1, "e": 1}),
    ],
)
def test_select_labels_quota_cuts_and_fills_up_classes(make_labels, quota, duplicate, wanted):
    root = make_labels(POOL)
    assert copies(manifest(root, select(root, threshold=0.8, quota=quota, duplicate=duplicate))) == wanted


def test_select_labels_threshold_is_met_by_its_own_value(make_labels):
    # 0.7 in 32 bits is less than 0.7 in 64
    root = make_labels([predicted("a", 0, 0.7), predicted("b", 0, float(np.nextafter(np.float32(0.7), np.float32(0))))])
    assert copies(manifest(root, select(root, threshold=0.7))) == {"a": 1}


def test_select_labels_soft_targets_are_sharpened_over_the_kept_classes(make_labels):
    root = make_labels([predicted("a", 2, 0.6, others=[(0, 0.3)]), predicted("b", 1, 0.2, others=[(3, 0.0)])])
    rows = manifest(root, select(root, threshold=0.1, temperature=0.5))
    assert [row["class_ids"] for row in rows] == [[2, 0], [1, 3]]
    assert rows[0]["probabilities"] == pytest.approx([0.36 / 0.45, 0.09 / 0.45])
    assert rows[1]["probabilities"] == [1, 0]
    assert [row["confidence"] for row in rows] == pytest.approx([0.6, 0.2])
    plain = manifest(root, select(root, threshold=0.1))
    assert plain[0]["probabilities"] == pytest.approx([2 / 3, 1 / 3])


def test_select_labels_hard_targets_are_one_class(make_labels):
    root = make_labels([predicted("a", 2, 0.6, others=[(0, 0.3)]), predicted("b", 2, 0.1)])
    first, second = manifest(root, select(root, threshold=0.5, targets="hard"))
    assert (first["class_id"], first["class_ids"], first["probabilities"]) == (2, [2], [1.0])
    assert (second["class_id"], second["class_ids"], second["copies"]) == (2, None, 0)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"relevant_per_class": 1}, {"a", "d"}),
        ({"relevant_share": 0.5}, {"a", "b", "d"}),  # two of four, one of two
        ({"relevant_share": 0.01}, {"a", "d"}),
        ({"relevant_per_class": 1, "relevance_from": "inside"}, {"c", "e"}),
    ],
)
def test_select_labels_relevance_keeps_the_most_confident_of_each_class(make_labels, options, wanted):
    root = make_labels(POOL)
    make_labels([predicted("c", 3, 0.2), predicted("e", 1, 0.3), predicted("a", 1, 0.2)], table="pets.inside")
    made = select(root, threshold=0, **options)
    rows = manifest(root, made)
    assert set(copies(rows)) == wanted
    assert {row["reason"] for row in rows if row["confidence"] is not None and not row["copies"]} == {"irrelevant"}
    assert ("pets.inside" in made.version.lineage.inputs) == ("relevance_from" in options)


def test_select_labels_precision_counts_known_labels_of_the_chosen(make_labels):
    root = make_labels(
        [predicted("a", 0, 0.9, label=0), predicted("b", 0, 0.9, label=1), predicted("c", 1, 0.2, label=1)]
    )
    made = select(root, threshold=0.5)
    assert (made.known, made.right) == (2, 1)


def test_select_labels_split_takes_only_its_images(make_labels):
    root = make_labels([predicted("a", 0, 0.9), predicted("b", 0, 0.99, split="val")])
    assert copies(manifest(root, select(root, threshold=0.5, quota=1, split="pool"))) == {"a": 1}
    with pytest.raises(BadInput, match="split 'tset'"):
        select(root, split="tset")


def test_select_labels_same_again_makes_no_version_and_another_rule_does(make_labels):
    root = make_labels(POOL)
    first = select(root, threshold=0.8)
    assert first.version.lineage.inputs == {"pets.pseudo_labels": 1}
    assert first.version.metadata["rule"]["threshold"] == 0.8
    assert first.version.metadata["classes"]["classes"][3]["name"] == "dog"
    assert select(root, threshold=0.8).version == first.version
    assert select(root, threshold=0.81).version.number == 2


def test_select_labels_nothing_chosen_is_a_manifest_too(make_labels):
    made = select(make_labels(POOL), threshold=1)
    assert (made.images, made.chosen, made.copies) == (8, 0, 0)


def test_select_labels_not_finite_or_empty_predictions_are_no_predictions(make_labels):
    root = make_labels([predicted("a", 0, math.nan), predicted("b", 0, math.inf), predicted("c", 1, 0.0)])
    assert select(root, threshold=0).rejected == {"no_prediction": 3}


def test_select_labels_manifest_view_names_classes(make_labels):
    root = make_labels([predicted("a", 2, 0.9, label=3)])
    select(root)
    with open_store(root).connect() as sql:
        row = sql.execute("SELECT image_id, class_name, label_name, copies FROM pets.manifest").fetchall()
    assert row == [("a", "cow", "dog", 1)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels_table": "manifest"}, "pets.manifest: no such table"),
        ({"labels_table": "strange"}, "labels_table: pets.strange is no table of pseudo labels: it lacks"),
        ({"labels_version": 7}, "version 7 does not exist"),
        ({"table": "pseudo_labels"}, "table: 'pseudo_labels' is the name of another table"),
        ({"table": "images"}, "table: 'images' is"),
        ({"targets": "hard", "temperature": 0.4}, "temperature: hard targets"),
        ({"relevant_per_class": 1, "relevant_share": 0.1}, "relevant_share: expected this or"),
        ({"relevance_from": "pseudo_labels"}, "relevance_from: expected how many"),
        ({"relevance_from": "gone", "relevant_share": 0.1}, "pets.gone: no such table"),
        ({"relevance_version": 1}, "relevance_version: expected relevance_from"),
    ],
)
def test_check_choose_wrong_parameters_are_refused_by_name(make_labels, options, words):
    root = make_labels(POOL)
    store = open_store(root)
    if options.get("labels_table") == "strange":
        select(root, table="strange")
    with pytest.raises((BadInput, NotInStore), match=words):
        check_choose(SelectParameters(store=str(store.root), dataset="pets", **options))


CONFIDENCES = st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.75, 0.9, 1.0]) | st.floats(0, 1, width=32)
ROWS = st.lists(
    st.tuples(st.integers(0, 3) | st.none(), CONFIDENCES, st.sampled_from(["train", "pool"])), min_size=1, max_size=40
)
RULES = st.fixed_dictionaries(
    {
        "threshold": CONFIDENCES,
        "quota": st.none() | st.integers(1, 8),
        "duplicate": st.booleans(),
        "relevant_per_class": st.none() | st.integers(1, 5),
        "targets": st.sampled_from(["hard", "soft"]),
    }
)


def choose_plainly(rows, rule):
    """The choice by a loop over sorted rows: copies by image."""
    usable = [r for r in rows if r["pseudo_class"] is not None and (rule["targets"] == "hard" or r["confidence"] > 0)]
    pool = [r for r in rows if r["pseudo_class"] is not None]
    by_class = defaultdict(list)
    for row in sorted(pool, key=lambda r: (-np.float32(r["confidence"]), r["image_id"])):
        by_class[row["pseudo_class"]].append(row)
    found = {}
    for members in by_class.values():
        kept = members[: rule["relevant_per_class"]]
        kept = [r for r in kept if r in usable and np.float32(r["confidence"]) >= np.float32(rule["threshold"])]
        kept = kept[: rule["quota"]]
        for place, row in enumerate(kept):
            count = 1
            if rule["quota"] and rule["duplicate"]:
                count = len(range(place, rule["quota"], len(kept)))  # dealt out in rounds
            found[row["image_id"]] = count
    return found


@settings(max_examples=40, deadline=None)
@given(drawn=ROWS, rule=RULES, order=st.randoms(use_true_random=False))
def test_select_labels_any_rule_in_any_order_chooses_what_a_loop_does(drawn, rule, order):
    rows = [predicted(f"i{n}", c, p, split=s) for n, (c, p, s) in enumerate(drawn)]
    wanted = choose_plainly(rows, rule)
    order.shuffle(rows)
    with tempfile.TemporaryDirectory() as folder:
        root = write_labels(rows, folder, part_rows=7)
        made = select_labels(SelectParameters(store=str(root), dataset="pets", **rule), part_rows=10)
        found = manifest(root, made)
    assert [row["image_id"] for row in found] == [row["image_id"] for row in rows]
    assert copies(found) == wanted
    assert made.images == len(rows) == made.chosen + sum(made.rejected.values())
    assert made.copies == sum(wanted.values())
    sums = Counter({row["class_id"]: 0 for row in found})
    for row in found:
        sums[row["class_id"]] += row["copies"]
        assert (row["status"] == "done") == (row["copies"] > 0) == (row["reason"] is None)
        if row["copies"]:
            assert np.float32(row["confidence"]) >= np.float32(rule["threshold"])
            assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-6)
    if rule["quota"]:
        assert all(n <= rule["quota"] for n in sums.values())
        assert not rule["duplicate"] or set(sums.values()) <= {0, rule["quota"]}
