"""What a run learns from, and which parameters make it another run."""

import pytest
from tests.tasks.train.trained import parameters_of, write_manifest

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.tasks.train.plan import plan_training


def plan(store, **options):
    return plan_training(parameters_of(store, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1}, {"steps": 9}, {"rate": 0.2}, {"labels_per_class": 4}, {"label_seed": 5, "labels_per_class": 4},
        {"validation_per_class": 2}, {"student": "resnet18_32"}, {"input_size": 24}, {"strong_policy": "weak-cifar"},
        {"threads": 2}, {"precision": "bf16"}, {"objective": "uda"}, {"validate_every": 3}, {"cutmix": 1.0},
        {"processes": 2}, {"sizes": "16,24"},
    ],
    ids=str,
)  # fmt: skip
def test_plan_training_what_decides_the_weights_makes_another_run(store, options):
    assert plan(store, **options).run != plan(store).run


@pytest.mark.parametrize(
    "options",
    [{"workers": 3}, {"cache_mb": 0}, {"checkpoint_every": 2}, {"out": "/elsewhere"}, {"images_version": 2}],
    ids=str,
)
def test_plan_training_what_decides_no_weight_leaves_the_run(store, options):
    assert plan(store, **options).run == plan(store).run


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("objective", ["uda", "mpl", "pseudo"])
def test_plan_training_validation_images_are_learnt_from_nowhere(store, objective, split):
    everything = [(name, {0: 1.0}, 1) for name in plan(store).labelled.ids()]
    write_manifest(store, everything)
    found = plan(store, objective=objective, validation_per_class=4, labels_per_class=5, unlabelled_split=split)
    aside = set(found.validation.ids())
    assert (len(aside), len(found.labelled), len(found.unlabelled)) == (12, 15, 78)
    assert not aside & set(found.labelled.ids())
    assert not aside & set(found.unlabelled.ids())
    assert not aside & set(found.test.ids())
    assert set(found.labelled.ids()) < set(found.unlabelled.ids())


def test_plan_training_measures_on_the_test_split_and_learns_from_the_other(store):
    found = plan(store)
    assert {name.split("/")[0] for name in found.test.ids()} == {"test"}
    assert (len(found.labelled), len(found.test), found.unlabelled) == (90, 30, None)
    assert found.inputs == {"colours.images": 2}


def test_plan_training_inputs_name_what_was_read(labelled_store, manifest_store):
    maps = plan(labelled_store, objective="relabel")
    assert maps.inputs == {"colours.images": 2, "colours.label_maps": 1}
    assert maps.classes == maps.maps.metadata.classes
    assert plan(manifest_store, objective="pseudo").inputs == {"colours.images": 2, "colours.manifest": 1}


def test_plan_training_relabel_takes_images_with_a_map_alone(labelled_store):
    assert len(plan(labelled_store, objective="relabel").labelled) == 90
    assert len(plan(labelled_store, objective="relabel", labels_per_class=3).labelled) == 9


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"eval_split": "train"}, "eval_dataset: nothing is left to measure on"),
        ({"split": "test"}, "eval_dataset: nothing is left to measure on"),
        ({"images_version": 1}, "eval_dataset: nothing is left to measure on"),
        ({"eval_split": "gone"}, "eval_split: expected one of test, train, got 'gone'"),
        ({"split": "gone"}, "split: expected one of test, train, got 'gone'"),
        ({"objective": "uda", "unlabelled_split": "gone"}, "unlabelled_split: expected one of test, train, got 'gone'"),
        (
            {"objective": "uda", "unlabelled_split": "test"},
            "unlabelled_split: 30 of its 30 images are those of colours.images that the accuracy is measured on",
        ),
        ({"labels_per_class": 31}, "labels_per_class: expected 31 labelled images of each class"),
        ({"weak_policy": "wek"}, "policy 'wek': expected"),
        ({"student": "no_such_net"}, "no_such_net"),
        ({"image_root": "/gone", "split": None, "dataset": "colours", "input_size": 8}, "input_size 8"),
    ],
)  # fmt: skip
def test_plan_training_what_does_not_fit_is_refused_by_name(store, options, text):
    with pytest.raises(BadInput) as error:
        plan(store, **options)
    assert text in str(error.value)


@pytest.mark.parametrize("objective", ["relabel", "pseudo"])
def test_plan_training_a_table_that_is_not_there_is_named(store, objective):
    with pytest.raises(NotInStore, match=r"colours\.(label_maps|manifest): no such table"):
        plan(store, objective=objective)


def test_start_student_random_weights_are_the_seed_s(store):
    first, again, other = (next(iter(plan(store, seed=seed).student.model.state_dict().values())) for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_plan_training_half_precision_on_a_cpu_is_refused(store):
    with pytest.raises(BadInput, match="precision: fp16 needs a GPU"):
        plan(store, precision="fp16", device="cpu")
