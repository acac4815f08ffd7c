"""The page of a run."""

import re

import numpy as np
from tests.tasks.train.trained import train

from labelmill.tasks.train.page import build_training_page, draw_steps


def test_build_training_page_shows_this_run_s_curves_and_facts(store):
    train(store, steps=3, seed=1, objective="uda")
    ended = train(store, steps=4, validation_per_class=2, validate_every=2)
    page = build_training_page(ended.plan.training, ended.curves, ended.checkpoints)
    assert "conv4 on colours, supervised" in page
    assert f"{ended.trained.accuracy.value:.4f} on 30 images of colours.images v2" in page
    assert "84 labelled and 0 further images" in page
    assert "colours.images v2" in page
    assert "validation accuracy" in page
    assert "labelled loss" in page
    assert "unlabelled share" not in page  # the other run's
    assert "step 3" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def points_of(drawing):
    return [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]+)"', drawing)[1].split()]


def test_draw_steps_goes_left_to_right_and_up_with_the_value():
    points = points_of(draw_steps("loss", np.array([0.0, 1, 2]), np.array([1.0, 3, 2])))
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    heights = [y for _, y in points]
    assert heights[1] < heights[2] < heights[0]


def test_draw_steps_many_are_thinned_and_one_is_drawn():
    assert len(points_of(draw_steps("loss", np.arange(1000.0), np.ones(1000)))) == 160
    assert len(points_of(draw_steps("loss", np.array([5.0]), np.array([2.0])))) == 1
