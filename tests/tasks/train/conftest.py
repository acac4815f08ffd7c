"""A store of three colours, made once and copied for each test that writes into it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.tasks.train.trained import CLASSES, ingest, relabel, train, write_images, write_manifest

TRAIN, TEST = 30, 10
"""Images of a class."""


@dataclass(frozen=True)
class Colours:
    root: Path
    store: Path


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Runs here set it to one; what is computed beside them shall add up in the same order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made_colours(tmp_path_factory):
    """Ninety images to learn from, thirty of another split, and one that is broken."""
    root = tmp_path_factory.mktemp("colours")
    write_images(root / "train", [TRAIN] * len(CLASSES), seed=1)
    write_images(root / "test", [TEST] * len(CLASSES), seed=2)
    (root / "train" / "red" / "broken.png").write_bytes(b"")
    ingest(root / "train", root / "store", split="train")
    ingest(root / "test", root / "store", split="test", id_prefix="test/")
    return Colours(root, root / "store")


@pytest.fixture
def store(made_colours, tmp_path):
    """A store of its own over the images that all tests share."""
    return Path(shutil.copytree(made_colours.store, tmp_path / "store"))


@pytest.fixture(scope="session")
def labelled_colours(made_colours, tmp_path_factory):
    """The store with label maps of a student that was trained on it."""
    root = tmp_path_factory.mktemp("labelled")
    store = Path(shutil.copytree(made_colours.store, root / "store"))
    (root / "teacher.safetensors").write_bytes(train(store, steps=20).weights)
    shutil.rmtree(store)
    shutil.copytree(made_colours.store, store)
    relabel(store, root / "teacher.safetensors")
    return Colours(root, store)


@pytest.fixture
def labelled_store(labelled_colours, tmp_path):
    return Path(shutil.copytree(labelled_colours.store, tmp_path / "labelled" / "store"))


@pytest.fixture
def manifest_store(store):
    """The store with a manifest: five images of each class, of which the first ones are taken three times."""
    rows = []
    for label, name in enumerate(CLASSES):
        for number in range(5):
            others = {other: 0.1 for other in range(len(CLASSES)) if other != label}
            rows.append((f"{name}/{number:02}.png", {label: 0.8, **others}, 1 if number else 3))
        rows.append((f"{name}/05.png", {label: 0.4}, 0))
    write_manifest(store, rows)
    return store
