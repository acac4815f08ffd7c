"""Refusals before any work."""

import pytest
from tests.tasks.train.trained import parameters_of

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.tasks.train.preflight import check_train


def test_check_train_lets_good_parameters_pass(store):
    check_train(parameters_of(store))
    check_train(parameters_of(store, objective="uda", unlabelled_split="train", strong_policy="rand-augment"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"split": "gone"}, "split: expected one of test, train, got 'gone'"),
        ({"eval_split": "gone"}, "eval_split: expected one of test, train, got 'gone'"),
        ({"unlabelled_split": "gone"}, "unlabelled_split: expected one of test, train, got 'gone'"),
        ({"eval_dataset": "nothing"}, "nothing.images: no such table"),
        ({"unlabelled_dataset": "nothing"}, "nothing.images: no such table"),
        ({"eval_split": "train"}, "eval_dataset: nothing is left to measure on"),
        ({"images_version": 1}, "eval_dataset: nothing is left to measure on"),
        ({"images_version": 7}, "version 7 does not exist"),
        ({"objective": "relabel"}, "colours.label_maps: no such table"),
        ({"objective": "pseudo"}, "colours.manifest: no such table"),
        ({"objective": "pseudo", "manifest": "colours.chosen"}, "colours.chosen: no such table"),
        ({"student_weights": "/gone.safetensors"}, "student_weights: no such file: /gone.safetensors"),
        ({"weak_policy": "wek"}, "policy 'wek': expected"),
    ],
    ids=str,
)  # fmt: skip
def test_check_train_what_is_not_there_is_refused_by_name(store, options, text):
    with pytest.raises((BadInput, NotInStore)) as error:
        check_train(parameters_of(store, **options))
    assert text in str(error.value)
