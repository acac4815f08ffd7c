"""The verdict: what falls short of a bound is told, what just reaches it is not."""

import pytest
import torch

from labelmill.models.map_agreement import MapAgreement
from labelmill.tasks.relabel.reinfer_verdict import FLOAT32, REDUCED, list_disagreeing, list_figures, list_problems

IDS = ["a.JPEG", "b.JPEG", "c.JPEG", "d.JPEG"]


def agreement(same_top=(1.0,) * 4, median=(0.0,) * 4, variation=(0.0,) * 4):
    return MapAgreement(
        same_top=torch.tensor(same_top),
        logit_median=torch.tensor(median),
        logit_largest=torch.tensor(median),
        total_variation=torch.tensor(variation),
        same_pooled=torch.ones(4, dtype=torch.bool),
    )


@pytest.mark.parametrize("bounds", [FLOAT32, REDUCED], ids=["fp32", "bf16"])
def test_list_problems_just_within_the_bounds_is_none(bounds):
    within = agreement(
        [bounds.same_top + 1e-4] * 4, [bounds.logit_median - 1e-4] * 4, [bounds.total_variation - 1e-5] * 4
    )
    assert list_problems(within, bounds, IDS) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(agreement([0.94] * 4), "cells with the same top class: 94.0 %, expected 95.0 % or more", id="top"),
        pytest.param(agreement(median=[0.0, 0.0, 0.0, 0.3]), "logits: they differ by 0.075 (median)", id="logits"),
        pytest.param(agreement(median=[torch.nan] * 4), "logits: they differ by nan", id="no class in common"),
        pytest.param(agreement(variation=[0.02] * 4), "pooled labels: total variation 0.0200", id="labels"),
    ],
)
def test_list_problems_beyond_a_bound_is_that_one(found, said):
    (problem,) = list_problems(found, FLOAT32, IDS)
    assert problem.startswith(said)


def test_list_problems_one_bad_image_among_good_ones_is_named():
    (problem,) = list_problems(agreement([1.0, 1.0, 0.81, 1.0]), FLOAT32, IDS) or [""]
    assert problem == ""
    found = agreement([1.0, 1.0, 0.1, 1.0])
    problems = list_problems(found, FLOAT32, IDS)
    assert problems[-1] == "1 of 4 images agree in less than 75.0 % of their cells, the worst in 10.0 %: c.JPEG"
    assert list_disagreeing(found, FLOAT32) == [2]


def test_list_disagreeing_are_the_worst_first():
    assert list_disagreeing(agreement([0.3, 1.0, 0.1, 0.2]), REDUCED) == [2, 3, 0]


def test_list_problems_and_figures_of_classes_only_leave_numbers_out():
    found = agreement(median=[9.0] * 4, variation=[0.9] * 4)
    assert list_problems(found, FLOAT32, IDS, classes_only=True) == []
    assert len(list_problems(found, FLOAT32, IDS)) == 2
    measures = [figure.measure for figure in list_figures(found, FLOAT32, classes_only=True)]
    assert measures == ["cells with the same top class", "same pooled class"]
