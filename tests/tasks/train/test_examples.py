"""Images of a version with their labels, and which of them are learnt from."""

import numpy as np
import pyarrow as pa
import pytest
from tests.tasks.train.trained import CLASSES

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.tasks.store import open_store
from labelmill.tasks.train.examples import NO_CLASS, choose_labelled, read_examples


def list_classes(*names):
    return ClassList(classes=tuple(ClassName(name=name) for name in names), source="test")


def read(store, split="train", classes=CLASSES, **options):
    images = open_store(store).table("colours.images")
    return read_examples(
        images, images.version(), split=split, image_root=None, classes=list_classes(*classes), **options
    )


def test_read_examples_gives_the_done_images_of_a_split_and_counts_the_others(store):
    found = read(store)
    assert (len(found), found.rejected) == (90, {"empty": 1})
    assert set(found.rows["split"].to_pylist()) == {"train"}
    assert [CLASSES[label] for label in found.classes] == [name.split("/")[0] for name in found.ids()]


def test_read_examples_labels_become_ids_of_the_student_s_classes_by_name(store):
    names = ("red", "mauve", "blue")
    found = read(store, classes=names)
    expected = [names.index(c) if c in names else NO_CLASS for c in (name.split("/")[0] for name in found.ids())]
    assert found.classes.tolist() == expected
    assert NO_CLASS in expected


def test_read_examples_several_classes_of_an_image_are_those_that_the_student_has(store):
    images = open_store(store).table("colours.images")
    version = images.version()
    rows = images.read(version, IMAGES_SCHEMA.names).to_pylist()
    for row in rows:
        if row["image_id"] in ("test/red/00.png", "test/red/01.png"):
            row |= {"label": None, "labels": [0, 2] if row["image_id"].endswith("00.png") else [1]}
    part = images.write_part(pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA), key="several")
    images.replace([part], schema=IMAGES_SCHEMA, metadata=version.metadata, lineage=version.lineage)
    found = read(store, split="test", classes=("red", "blue"))
    by_id = {found.ids()[place]: ids for place, ids in found.several.items()}
    assert by_id == {"test/red/00.png": {0, 1}, "test/red/01.png": frozenset()}
    place = found.ids().index("test/red/00.png")
    assert found.take([1, place]).several == {1: {0, 1}}


def test_read_examples_unknown_split_is_refused_by_the_field_that_named_it(store):
    with pytest.raises(BadInput, match=r"^eval_split: expected one of test, train, got 'gone'"):
        read(store, split="gone", field="eval_split")


def test_row_says_where_the_file_lies(store, made_colours):
    found = read(store, split="test")
    place = found.ids().index("test/green/03.png")
    assert found.row(place)["path"] == str(made_colours.root / "test/green/03.png")


def test_take_keeps_order_and_labels(store):
    found = read(store)
    taken = found.take([40, 3])
    assert taken.ids() == [found.ids()[40], found.ids()[3]]
    assert taken.classes.tolist() == [found.classes[40], found.classes[3]]


def test_digest_depends_on_images_labels_and_their_order(store):
    found = read(store)
    others = [found.take([1, 0]), found.take([0]), read(store, classes=("green", "blue", "red")).take([0, 1])]
    assert len({found.take([0, 1]).digest(), *(other.digest() for other in others)}) == 4
    assert read(store).digest() == found.digest()


def test_without_leaves_out_images_of_the_same_table_alone(store):
    found, some = read(store), read(store).take([5, 9])
    assert found.without(some).ids() == [name for name in found.ids() if name not in some.ids()]
    assert len(found.without(read(store, split="test"))) == len(found)


@pytest.mark.parametrize(("per_class", "taken"), [(4, 4), (None, 25)])
def test_choose_labelled_takes_as_many_of_each_class_and_sets_others_aside(store, per_class, taken):
    found = read(store)
    chosen, aside = choose_labelled(found, per_class=per_class, skip_per_class=5, seed=0)
    assert np.bincount(found.classes[chosen]).tolist() == [taken] * 3
    assert np.bincount(found.classes[aside]).tolist() == [5] * 3
    assert not set(chosen) & set(aside)


def test_choose_labelled_depends_on_the_seed_and_not_on_the_order_of_rows(store):
    found = read(store)

    def names(examples, **given):
        chosen, _ = choose_labelled(examples, **{"per_class": 3, "skip_per_class": 2, "seed": 0, **given})
        return set(examples.take(chosen).ids())

    assert names(found) == names(found.take(np.arange(len(found))[::-1]))
    assert names(found) != names(found, seed=1)
    assert names(found) < names(found, per_class=4)


def test_choose_labelled_too_few_images_are_refused_by_class(store):
    with pytest.raises(BadInput, match=r"labels_per_class: expected 31 labelled images of each class .* 0 has 30"):
        choose_labelled(read(store), per_class=30, skip_per_class=1, seed=0)


def test_choose_labelled_leaves_out_images_without_a_class(store):
    found = read(store, classes=("red", "mauve"))
    chosen, _ = choose_labelled(found, per_class=None, skip_per_class=0, seed=0)
    assert {name.split("/")[0] for name in found.take(chosen).ids()} == {"red"}
