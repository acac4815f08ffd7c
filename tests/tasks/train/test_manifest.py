"""Pseudo labels of a manifest as a student takes them."""

import numpy as np
import pytest
import torch
from tests.tasks.train.trained import parameters_of, write_manifest

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.tasks.store import open_store
from labelmill.tasks.train.manifest import read_manifest
from labelmill.tasks.train.plan import plan_training

ROWS = [
    ("red/01.png", {2: 0.75, 0: 0.25}, 2),
    ("gone.png", {1: 1.0}, 1),
    ("blue/00.png", {0: 1.0}, 1),
    ("green/07.png", {1: 0.4}, 0),
    ("green/02.png", {0: 0.5, 1: 0.3, 2: 0.2}, 3),
]


@pytest.fixture
def pool(store):
    return plan_training(parameters_of(store)).labelled


@pytest.fixture
def manifest(store):
    write_manifest(store, ROWS)
    return read_manifest(open_store(store).table("colours.manifest"), None)


def test_choose_takes_the_chosen_images_that_are_there_in_the_manifest_s_order(manifest, pool):
    chosen = manifest.choose(pool)
    assert chosen.ids() == ["red/01.png", "blue/00.png", "green/02.png"]
    assert manifest.missing == ["gone.png"]
    assert manifest.copies_of(chosen).tolist() == [2, 1, 3]


def test_labels_for_are_the_manifest_s_probabilities_whatever_the_order(manifest, pool):
    chosen = manifest.choose(pool).take([2, 0])
    labels = manifest.labels_for(chosen)
    expected = torch.tensor([[0.25, 0, 0.75], [0.5, 0.3, 0.2], [0.25, 0, 0.75]])
    assert torch.equal(labels.of(np.array([1, 0, 1])), expected)


def test_choose_none_of_the_images_is_refused(manifest, store):
    other = plan_training(parameters_of(store)).test
    with pytest.raises(BadInput, match=r"manifest: none of its 4 images is among those of colours.images"):
        manifest.choose(other)


def test_read_manifest_another_table_is_refused_by_name(store):
    with pytest.raises(BadInput, match=r"manifest: expected a table that select made, with classes, got colours\.im"):
        read_manifest(open_store(store).table("colours.images"), None)
    with pytest.raises(NotInStore, match="no such table"):
        read_manifest(open_store(store).table("colours.manifest"), None)
