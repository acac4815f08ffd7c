"""Accuracy, by hand."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tasks.train.trained import CLASSES, ingest, parameters_of, write_images
from torch import nn

from labelmill.tasks.train.examples import NO_CLASS, Examples
from labelmill.tasks.train.measure import measure
from labelmill.tasks.train.plan import plan_training


class Brightest(nn.Module):
    """Names the brightest colour, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, images):
        assert not self.training
        self.seen.append(images)
        return images.mean((2, 3)).flip(1)  # blue, green, red


@pytest.fixture
def big_test(store, tmp_path):
    """A plan whose test images are larger than the student's input, two more of whose labels are wrong."""
    write_images(tmp_path / "big", [5, 5, 5], seed=4, size=24)
    shutil.copy(tmp_path / "big/red/00.png", tmp_path / "big/blue/wrong.png")
    shutil.copy(tmp_path / "big/red/01.png", tmp_path / "big/blue/wrong2.png")
    ingest(tmp_path / "big", store, split="big", id_prefix="big/")
    return plan_training(parameters_of(store, eval_split="big"))


def measured(plan, test=None, model=None):
    return measure(model or Brightest(), test or plan.test, plan.student.preprocessing, max_pixels=10**6)


def changed(examples, **fields):
    given = {name: getattr(examples, name) for name in Examples.__dataclass_fields__}
    return Examples(**{**given, **fields})


def test_measure_shows_whole_images_at_the_student_s_size_and_no_views(big_test):
    model = Brightest().train()
    found = measured(big_test, model=model)
    assert (found.right, found.images, found.value) == (15, 17, 15 / 17)
    assert model.training
    facts = big_test.student.preprocessing
    assert facts.interpolation in ("bilinear", "bicubic")
    how = Image.Resampling[facts.interpolation.upper()]
    whole = [Image.open(big_test.test.row(place)["path"]).resize((16, 16), how) for place in range(17)]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in whole])).double() / 255
    expected = (pixels - torch.tensor(facts.mean)) / torch.tensor(facts.std)
    torch.testing.assert_close(torch.cat(model.seen).double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


def test_measure_image_of_several_classes_is_right_with_any_of_them(big_test):
    test = big_test.test
    wrong = test.ids().index("big/blue/wrong.png")
    several = {wrong: frozenset([1, CLASSES.index("red")])}
    assert measured(big_test, changed(test, several=several)).right == 16
    assert measured(big_test, changed(test, several={wrong: frozenset([1])})).right == 15


def test_measure_images_without_a_class_are_counted_and_not_measured(big_test):
    classes = big_test.test.classes.copy()
    classes[:4] = NO_CLASS
    found = measured(big_test, changed(big_test.test, classes=classes, several={5: frozenset()}))
    assert (found.images, found.unlabelled) == (12, 5)


def test_measure_images_that_are_gone_are_counted_by_reason(big_test, tmp_path):
    (tmp_path / "big/red/00.png").unlink()
    (tmp_path / "big/red/01.png").write_bytes(b"another")
    found = measured(big_test, changed(big_test.test, rejected={"empty": 1}))
    assert (found.right, found.images) == (13, 15)
    assert found.rejected == {"changed": 1, "empty": 1, "missing": 1}
    shutil.rmtree(tmp_path / "big")
    none = measured(big_test)
    assert (none.images, none.value, none.rejected) == (0, 0.0, {"missing": 17})


def test_measure_more_images_than_a_batch_are_all_looked_at(store, monkeypatch):
    monkeypatch.setattr("labelmill.tasks.train.measure.BATCH_SIZE", 4)
    plan = plan_training(parameters_of(store))
    model = Brightest()
    found = measure(model, plan.test, plan.student.preprocessing, max_pixels=10**6, workers=2)
    assert (found.right, found.images) == (30, 30)
    assert [len(seen) for seen in model.seen] == [4] * 7 + [2]
