"""Batches: functions of their step, in any process."""

import multiprocessing
import os
import pickle
import shutil
import signal

import numpy as np
import pytest
import torch
from tests.tasks.train.trained import parameters_of

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.train.batches import REJECTED, StepBatches, Stream, load_batches
from labelmill.tasks.train.learners import build_batches
from labelmill.tasks.train.order import ShuffledOrder
from labelmill.tasks.train.plan import plan_training

NAMES = {
    "supervised": {"images", "labels"},
    "relabel": {"images", "labels"},
    "pseudo": {"images", "labels", "strong", "pseudo_labels"},
    "uda": {"images", "labels", "weak", "strong"},
}


def batches_of(store, *, rank=0, ranks=1, **options):
    return build_batches(plan_training(parameters_of(store, **options)), rank=rank, ranks=ranks)[0]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def own_images(made_colours, tmp_path):
    """A copy of the images to learn from, which a test may damage."""
    return shutil.copytree(made_colours.root / "train", tmp_path / "own")


@pytest.mark.parametrize("objective", NAMES)
def test_batch_of_several_processes_together_is_that_of_one_in_order(labelled_store, manifest_store, objective):
    store = labelled_store if objective == "relabel" else manifest_store
    given = {"objective": objective, "unlabelled_ratio": 2, "processes": 2}
    parts = [batches_of(store, rank=rank, ranks=2, **given) for rank in (0, 1)]
    whole = batches_of(store, **given)
    for step in (0, 7):
        one, (first, second) = whole[step], (part[step] for part in parts)
        assert set(one) - {REJECTED} == NAMES[objective]
        for name in NAMES[objective]:
            assert len(first[name]) == len(second[name])
            assert torch.equal(torch.cat([first[name], second[name]]), one[name])


@pytest.mark.parametrize("objective", ["relabel", "uda"])
def test_batch_does_not_depend_on_earlier_ones_and_goes_to_other_processes(labelled_store, objective):
    used = batches_of(labelled_store, objective=objective)
    before = [used[step] for step in range(10)]
    assert same(pickle.loads(pickle.dumps(used))[9], before[9])
    assert same(batches_of(labelled_store, objective=objective)[9], before[9])
    assert not same(before[8], before[9])


def test_epoch_holds_each_image_once_and_another_one_its_other_views(store):
    stream = batches_of(store).streams[0]
    first, second = (stream.take(90 * epoch, 90 * epoch + 90) for epoch in (0, 1))
    places = [stream.order.at(90 * epoch, 90 * epoch + 90)[0] for epoch in (0, 1)]
    assert sorted(places[0].tolist()) == sorted(places[1].tolist()) == list(range(90))
    assert torch.bincount(first["labels"]).tolist() == [30, 30, 30]
    back = [np.argsort(order) for order in places]
    assert not torch.equal(first["images"][back[0]], second["images"][back[1]])
    assert torch.equal(first["labels"][back[0]], second["labels"][back[1]])


def test_views_weak_and_strong_are_of_the_same_images(store, tmp_path):
    policy = tmp_path / "whole.yaml"
    policy.write_text("- {op: resize, size: 16}\n")
    batch = batches_of(store, objective="uda", weak_policy=str(policy), strong_policy=str(policy))[0]
    assert torch.equal(batch["weak"], batch["strong"])
    ordinary = batches_of(store, objective="uda")[0]
    assert not torch.equal(ordinary["weak"], ordinary["strong"])


def test_take_copies_of_an_image_get_different_views_in_every_epoch(store):
    plan = plan_training(parameters_of(store))
    stream = build_batches(plan)[0].streams[0]
    places = np.array([4, 7, 4, 4])
    copies = Stream(
        pixels=stream.pixels, places=places, ids=stream.ids, count=4, views={"strong": plan.strong_views()},
        order=ShuffledOrder(4, seed=0, name="unlabelled"),
    )  # fmt: skip
    seen = []
    for epoch in range(3):
        order, _ = copies.order.at(4 * epoch, 4 * epoch + 4)
        views = copies.take(4 * epoch, 4 * epoch + 4)["strong"]
        seen += [view.numpy().tobytes() for view, entry in zip(views, order, strict=True) if places[entry] == 4]
    assert len(set(seen)) == 9


def test_pseudo_batch_has_the_manifest_s_labels_as_often_as_it_says(manifest_store):
    batches = batches_of(manifest_store, objective="pseudo", batch_size=7, unlabelled_ratio=3)
    labels = batches[0]["pseudo_labels"]
    assert labels.shape == (21, 3)  # an epoch: in each class four images once and one three times
    assert labels.sum(0).tolist() == pytest.approx([7.0] * 3)
    assert labels.max(1).values.tolist() == pytest.approx([0.8] * 21)


def test_relabel_batch_has_the_labels_of_what_the_views_show(labelled_store):
    plan = plan_training(parameters_of(labelled_store, objective="relabel"))
    batches = build_batches(plan)[0]
    batch, stream = batches[3], batches.streams[0]
    places, epochs = stream.order.at(36, 48)
    views = plan.weak_views()
    for number, (place, epoch) in enumerate(zip(places.tolist(), epochs.tolist(), strict=True)):
        pixels, box = views.make_with_box(stream.pixels.read(place), epoch=epoch, image_id=stream.ids[place])
        row = plan.maps.rows_of([plan.labelled.ids()[place]])
        assert np.array_equal(batch["images"][number].numpy(), pixels)
        torch.testing.assert_close(batch["labels"][number], plan.maps.pool(row, torch.tensor([box]))[0])


def test_uda_stream_ends_where_meta_pseudo_labels_fine_tune(store):
    batches = batches_of(store, objective="mpl", steps=8, finetune_steps=3)
    assert {"weak", "strong"} <= set(batches[4])
    assert set(batches[5]) == {"images", "labels", REJECTED}


def test_batch_passes_over_images_that_are_gone_and_counts_them(store, own_images):
    batches = batches_of(store, image_root=str(own_images), cache_mb=0)
    for name in ("blue/03.png", "green/10.png"):
        (own_images / name).unlink()
    made = [batches[step] for step in range(90 // 12 + 1)]
    assert sum(int(batch[REJECTED]) for batch in made[:7]) in (1, 2)  # the epoch's last images are in the eighth
    assert all(len(batch["images"]) == len(batch["labels"]) == 12 for batch in made)
    whole = batches.streams[0].take(0, 90)
    assert int(whole[REJECTED]) == 2
    assert torch.bincount(whole["labels"]).tolist() == [30, 30, 30]  # their neighbours, of the same class, stood in


def test_batch_too_many_images_gone_in_a_row_end_the_run(store, own_images):
    batches = batches_of(store, image_root=str(own_images), cache_mb=0)
    shutil.rmtree(own_images / "green")
    with pytest.raises(WorkFailed, match="16 images in a row could not be read, the last: missing"):
        batches.streams[0].take(0, 90)


def test_build_batches_images_in_memory_leave_out_what_is_gone_at_the_start(store, own_images):
    plan = plan_training(parameters_of(store, objective="uda", image_root=str(own_images)))
    (own_images / "blue/03.png").unlink()
    batches, lost = build_batches(plan)
    assert lost == {"missing": 2}  # as a labelled image and as one of all
    assert [len(stream.ids) for stream in batches.streams] == [89, 89]
    assert isinstance(batches, StepBatches)


def test_build_batches_no_image_there_ends_the_run(store, own_images):
    plan = plan_training(parameters_of(store, image_root=str(own_images)))
    shutil.rmtree(own_images)
    with pytest.raises(WorkFailed, match=r"no image could be read: \{'missing': 90\}; .* image_root"):
        build_batches(plan)


def test_load_batches_ctrl_c_while_a_worker_starts_loses_no_batch(store):
    """The terminal sends it to the whole group; stopping is for the loop to decide."""
    made, before = batches_of(store), set(multiprocessing.active_children())
    found = load_batches(made, start=0, stop=2, workers=1, pin=False)
    (worker,) = set(multiprocessing.active_children()) - before
    os.kill(worker.pid, signal.SIGINT)
    batches = list(found)
    assert len(batches) == 2
    assert all(same(batch, made[step]) for step, batch in enumerate(batches))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
