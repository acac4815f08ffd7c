"""A run's versions, files and facts."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tasks.train.trained import CLASSES, Killed, parameters_of, rows_of, train, write_manifest

from labelmill.models.teacher import load_teacher
from labelmill.tasks.store import open_store
from labelmill.tasks.train.job import choose_threads, open_accelerator, write_files


def test_train_student_file_is_a_teacher_with_the_accuracy_that_was_measured(store, made_colours):
    ended = train(store, steps=3, validation_per_class=2)
    path = write_files(ended.plan, ended.trained, "page")
    assert (path.name, path.read_bytes()) == ("student.safetensors", ended.weights)
    assert path.with_name("classes.txt").read_text().split() == list(CLASSES)
    assert path.with_name("curves.html").read_text() == "page"
    teacher = load_teacher("conv4", weights=str(path))
    assert [c.name for c in teacher.classes.classes] == list(CLASSES)
    files = sorted((made_colours.root / "test").rglob("*.png"))
    scale, shift = (torch.tensor(values) for values in teacher.preprocessing.scale_and_shift())
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).float() * scale + shift
    with torch.no_grad():
        found = teacher.classifier(pixels.permute(0, 3, 1, 2)).argmax(1).tolist()
    right = sum(CLASSES[one] == file.parent.name for one, file in zip(found, files, strict=True))
    assert right == ended.trained.accuracy.right
    assert ended.checkpoints.metadata["accuracy"] == pytest.approx(right / 30, abs=1e-6)
    assert ended.checkpoints.metadata["measured_on"] == {"table": "colours.images", "version": 2, "images": 30}


def test_train_checkpoints_version_holds_the_student_and_the_state(store):
    ended = train(store, steps=4, checkpoint_every=2)
    rows = rows_of(store, "colours.checkpoints")
    assert [(row["kind"], row["step"], row["run"]) for row in rows] == [
        ("student", 4, ended.plan.run), ("state", 4, ended.plan.run)
    ]  # fmt: skip
    assert rows[0]["content"] == ended.weights
    assert all(hashlib.sha256(row["content"]).hexdigest() == row["sha256"] for row in rows)


def test_train_again_does_nothing_and_makes_no_version(store):
    first, again = (train(store, steps=4, checkpoint_every=3) for _ in range(2))
    assert (again.trained.loop.steps, again.trained.loop.started_at) == (0, 4)
    assert (again.checkpoints, again.curves) == (first.checkpoints, first.curves)
    assert again.weights == first.weights
    assert [path.name for path in (store / "colours/checkpoints/runs").iterdir()] == []


def test_train_other_runs_add_their_curves_and_replace_the_checkpoints(store):
    first, second = train(store, steps=2), train(store, steps=3, seed=1)
    assert second.curves.rows == 5
    assert {row["run"] for row in rows_of(store, "colours.training")} == {first.plan.run, second.plan.run}
    assert {row["run"] for row in rows_of(store, "colours.checkpoints")} == {second.plan.run}
    back = train(store, steps=2)
    assert (back.trained.loop.steps, back.checkpoints.number, back.curves.number) == (0, 3, 2)
    assert back.weights == first.weights


def test_train_lineage_names_tables_versions_and_teacher(labelled_store, manifest_store):
    ended = train(labelled_store, objective="relabel", steps=2)
    for version in (ended.checkpoints, ended.curves):
        assert version.lineage.flow == "train"
        assert version.lineage.inputs == {"colours.images": 2, "colours.label_maps": 1}
        assert version.lineage.teacher["name"] == "conv4"
        assert version.lineage.parameters["label_maps_version"] == 1
        assert version.lineage.parameters["images_version"] == 2
    pseudo = train(manifest_store, objective="pseudo", steps=2)
    assert pseudo.checkpoints.lineage.inputs == {"colours.images": 2, "colours.manifest": 1}
    assert pseudo.checkpoints.lineage.parameters["manifest_version"] == 1


def test_train_manifest_s_images_that_are_not_there_are_counted(store):
    write_manifest(store, [("red/01.png", {2: 1.0}, 1), ("gone.png", {2: 1.0}, 1)])
    assert train(store, objective="pseudo", steps=1).trained.rejected == {"empty": 1, "not_among_images": 1}


def test_train_kept_state_of_a_killed_run_lies_beside_the_versions(store):
    with pytest.raises(Killed):
        train(store, steps=6, checkpoint_every=2, kill_after=5)
    table = open_store(store).table("colours.checkpoints")
    assert table.latest() is None
    assert len(list((store / "colours/checkpoints/parts").iterdir())) == 1


def test_train_pooled_labels_are_not_smoothed_again(labelled_store):
    plain = train(labelled_store, objective="relabel", steps=2)
    smoothed = train(labelled_store, objective="relabel", steps=2, label_smoothing=0.5)
    assert smoothed.plan.run != plain.plan.run
    assert [row["loss"] for row in smoothed.steps()] == [row["loss"] for row in plain.steps()]


@pytest.mark.parametrize("workers", [0, 1, 7])
def test_choose_threads_depends_on_the_processes_and_not_on_the_workers(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    counts = [
        choose_threads(parameters_of(tmp_path, workers=workers, processes=processes, threads=threads))
        for processes, threads in ((1, 0), (2, 0), (12, 0), (2, 3))
    ]
    assert counts == [8, 4, 1, 3]


def test_open_accelerator_takes_no_device_of_an_earlier_run(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert open_accelerator(parameters_of(tmp_path)).device.type == "cpu"
