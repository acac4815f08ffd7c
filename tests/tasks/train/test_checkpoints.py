"""What a killed run goes on from."""

import hashlib

import pytest
import torch
from tests.tasks.train.trained import parameters_of

from labelmill.tasks.train.checkpoints import RunRecords
from labelmill.tasks.train.plan import plan_training


@pytest.fixture
def plan(store):
    return plan_training(parameters_of(store))


def keep(records, step, *, start=0):
    records.write_curves([{"loss": float(number)} for number in range(start, step)], start=start)
    records.write_state({"value": torch.tensor([step])}, step=step)


def damage(table, path):
    (table.folder / path).write_bytes((table.folder / path).read_bytes()[:-1])


def test_find_state_gives_the_latest_checkpoint_and_goes_on_with_its_curves(plan):
    records = RunRecords(plan)
    keep(records, 2)
    keep(records, 4, start=2)
    later = RunRecords(plan)
    step, state = later.find_state([2, 4, 6])
    assert (step, state) == (4, {"value": torch.tensor([4])})
    keep(later, 6, start=4)
    curves, (state_part,) = later.parts()
    steps = [row for part in curves for row in plan.training.read_part(part)["step"].to_pylist()]
    assert steps == [0, 1, 2, 3, 4, 5]
    assert plan.checkpoints.read_part(state_part)["step"].to_pylist() == [6]


def test_find_state_of_another_run_is_not_taken(plan, store):
    keep(RunRecords(plan), 2)
    assert RunRecords(plan_training(parameters_of(store, seed=1))).find_state([2]) is None
    assert RunRecords(plan).find_state([3]) is None


def test_write_state_removes_the_one_before(plan):
    records = RunRecords(plan)
    keep(records, 2)
    keep(records, 4, start=2)
    assert [path.suffix for path in (plan.checkpoints.folder / "parts").iterdir()] == [".parquet"]
    assert RunRecords(plan).find_state([2]) is None


def test_find_state_damaged_checkpoint_falls_back_to_the_one_before_or_to_none(plan):
    keep(RunRecords(plan), 2)
    second = RunRecords(plan)  # as a process killed before it removed the first
    second.write_curves([{}, {}], start=0)
    keep(second, 4, start=2)
    damage(plan.checkpoints, second.parts()[1][0].path)
    later = RunRecords(plan)
    assert later.find_state([2, 4])[0] == 2
    damage(plan.checkpoints, later.parts()[1][0].path)
    assert RunRecords(plan).find_state([2, 4]) is None


def test_find_state_without_its_curves_is_not_taken(plan):
    records = RunRecords(plan)
    keep(records, 2)
    damage(plan.training, records.parts()[0][0].path)
    assert RunRecords(plan).find_state([2]) is None


def test_write_student_says_what_it_holds(plan):
    part = RunRecords(plan).write_student(b"weights", step=5)
    (row,) = plan.checkpoints.read_part(part).to_pylist()
    row_of = (row["kind"], row["step"], row["content"], row["run"])
    assert row_of == ("student", 5, b"weights", plan.run)
    assert row["sha256"] == hashlib.sha256(b"weights").hexdigest()
