"""The networks of an objective and how they learn."""

import pytest
from tests.tasks.train.trained import parameters_of

from labelmill.models.training_steps import MplObjective
from labelmill.tasks.train.job import open_accelerator
from labelmill.tasks.train.learners import build_objective, count_main_steps
from labelmill.tasks.train.plan import plan_training


def build(store, **options):
    plan = plan_training(parameters_of(store, **options))
    return plan, build_objective(plan, open_accelerator(plan.parameters))


def test_build_objective_of_meta_pseudo_labels_averages_and_keeps_the_student(store):
    plan, objective = build(store, objective="mpl", average=0.9)
    assert isinstance(objective, MplObjective)
    assert objective.teacher.average is None
    assert objective.learner is objective.student
    assert objective.student.model is plan.student.model
    assert objective.student.result is objective.student.average.module
    first, other = (next(learner.model.parameters()) for learner in (objective.student, objective.teacher))
    assert not first.equal(other), "both have the same random weights"


@pytest.mark.parametrize("objective", ["supervised", "uda"])
def test_build_objective_average_is_of_the_plan_s_student(store, objective):
    plan, built = build(store, objective=objective, average=0.9)
    assert built.learner.model is plan.student.model
    assert built.learner.average is not None
    assert build(store, objective=objective, average=0.0)[1].learner.average is None


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"objective": "uda"}, 50),
        ({"objective": "mpl"}, 45),
        ({"objective": "mpl", "finetune_steps": 0}, 50),
        ({"objective": "mpl", "finetune_steps": 20}, 30),
    ],
)
def test_count_main_steps_leaves_the_fine_tuning_out(tmp_path, options, steps):
    assert count_main_steps(parameters_of(tmp_path, steps=50, **options)) == steps
