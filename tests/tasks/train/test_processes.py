"""What the processes of one run make sure of."""

import pytest
from tests.tasks.train.trained import ingest, parameters_of, train, write_images

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.train.job import pin_versions
from labelmill.tasks.train.plan import plan_training
from labelmill.tasks.train.processes import plan_alike


@pytest.fixture
def planned(store, tmp_path):
    """The plan of a run that is measured on another dataset, whose images are in `new`."""
    ingest(write_images(tmp_path / "new", [2, 2, 2], seed=3), store, dataset="new")
    return plan_training(parameters_of(store, eval_dataset="new"))


def given_to(planned):
    return pin_versions(planned).model_dump(mode="json"), planned.run, planned.inputs


def test_plan_alike_of_the_same_data_is_the_same_run(planned):
    assert plan_alike(*given_to(planned)).run == planned.run


def test_plan_alike_new_version_of_the_runs_own_images_is_not_taken(planned, store, tmp_path):
    ingest(write_images(tmp_path / "more", [1, 1, 1], seed=4), store, split="more", id_prefix="more/")
    assert plan_alike(*given_to(planned)).inputs == planned.inputs


def test_plan_alike_new_version_of_another_dataset_is_refused_by_name(planned, store, tmp_path):
    ingest(write_images(tmp_path / "more", [1, 1, 1], seed=4), store, dataset="new", split="more", id_prefix="more/")
    with pytest.raises(WorkFailed, match=r"^new\.images got a new version while the run began; run the same"):
        plan_alike(*given_to(planned))


def test_plan_alike_other_weights_to_start_from_are_refused(store, tmp_path):
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(train(store, steps=1).weights)
    planned = plan_training(parameters_of(store, student_weights=str(weights)))
    weights.write_bytes(train(store, steps=2).weights)
    with pytest.raises(WorkFailed, match=r"^files that it reads changed"):
        plan_alike(*given_to(planned))
