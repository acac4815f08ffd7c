"""The loop: every objective learns, and a run that was killed ends where an unbroken one does."""

import shutil

import pytest
import safetensors.torch
import torch
from tests.tasks.train.trained import Killed, parameters_of, train

from labelmill.models.training_steps import TrainingBatch
from labelmill.schemas.errors import WorkFailed
from labelmill.tasks import stop
from labelmill.tasks.store import open_store
from labelmill.tasks.train.job import train_process
from labelmill.tasks.train.order import hash_seed
from labelmill.tasks.train.plan import plan_training

OBJECTIVES = {
    "supervised": {"steps": 20},
    "relabel": {"steps": 12, "cutmix": 1.0},
    "pseudo": {"steps": 12},
    "uda": {"steps": 12, "labels_per_class": 4, "entropy_weight": 0.1, "annealing": "linear"},
    "mpl": {"steps": 24, "labels_per_class": 10, "finetune_steps": 8, "finetune_rate": 0.05, "rate": 0.05},
}
COLUMNS = {
    "supervised": {"labelled_loss"},
    "relabel": {"labelled_loss"},
    "pseudo": {"labelled_loss", "unlabelled_loss", "unlabelled_weight"},
    "uda": {"labelled_loss", "unlabelled_loss", "unlabelled_share", "entropy", "annealing_threshold"},
    "mpl": {"labelled_loss", "feedback", "baseline", "feedback_loss", "student_loss"},
}


@pytest.fixture
def unbroken(store, tmp_path):
    """Another copy of the store, for the run that nothing stops."""
    return shutil.copytree(store, tmp_path / "unbroken" / "store")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_train_objective_learns_the_colours_and_records_what_it_lowers(manifest_store, labelled_store, objective):
    ended = train(
        labelled_store if objective == "relabel" else manifest_store, objective=objective, **OBJECTIVES[objective]
    )
    assert ended.trained.accuracy.value > 0.8
    first = ended.steps()[0]
    assert {name for name in COLUMNS[objective] if first[name] is None} == set()
    assert {name for name in ("feedback", "student_loss") if first[name] is not None} <= COLUMNS[objective]
    assert [row["step"] for row in ended.steps()] == list(range(OBJECTIVES[objective]["steps"]))


@pytest.mark.parametrize(
    ("objective", "kill_after", "options"),
    [
        ("uda", 4, {"precision": "bf16"}),
        ("uda", 7, {"optimizer": "adamw", "rate": 0.003}),
        ("mpl", 4, {"finetune_steps": 3}),
        ("mpl", 7, {"finetune_steps": 5}),  # in the fine-tuning
        ("uda", 2, {}),  # before any checkpoint
        ("supervised", 8, {"average": 0.0, "cutmix": 1.0, "sizes": "16,24"}),
    ],
)
def test_train_killed_and_gone_on_ends_with_the_weights_of_an_unbroken_run(
    store, unbroken, objective, kill_after, options
):
    given = {
        "objective": objective, "steps": 9, "checkpoint_every": 3, "validation_per_class": 4, "validate_every": 2,
        "batch_size": 6, **options,
    }  # fmt: skip
    with pytest.raises(Killed):
        train(store, kill_after=kill_after, **given)
    assert open_store(store).table("colours.checkpoints").latest() is None
    ended, whole = train(store, **given), train(unbroken, **given)
    assert ended.trained.loop.started_at == kill_after // 3 * 3
    assert ended.weights == whole.weights
    assert ended.steps() == whole.steps()
    assert ended.checkpoints.metadata == whole.checkpoints.metadata


def test_train_with_a_damaged_checkpoint_begins_anew(store, unbroken):
    given = {"steps": 6, "checkpoint_every": 3}
    with pytest.raises(Killed):
        train(store, kill_after=4, **given)
    (part,) = (store / "colours/checkpoints/parts").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    ended = train(store, **given)
    assert ended.trained.loop.started_at == 0
    assert ended.weights == train(unbroken, **given).weights


def test_train_batches_made_by_another_process_give_the_same_weights(store, unbroken):
    given = {"objective": "uda", "steps": 3}
    assert train(store, workers=1, **given).weights == train(unbroken, workers=0, **given).weights


def test_train_pixels_from_files_give_the_same_weights_as_from_memory(store, unbroken):
    assert train(store, cache_mb=0, steps=3).weights == train(unbroken, steps=3).weights


def test_train_validation_keeps_the_best_checkpoint(store):
    ended = train(store, steps=9, validation_per_class=8, validate_every=1, rate=0.4, schedule="constant", average=0.0)
    seen = [row["validation_accuracy"] for row in ended.steps()]
    assert len(set(seen)) > 1, "nothing to choose"
    assert ended.trained.validation_accuracy == pytest.approx(max(seen))
    assert ended.trained.kept_step == seen.index(max(seen)) + 1
    student, state = (ended.plan.checkpoints.read_part(part).to_pylist()[0] for part in ended.checkpoints.parts)
    assert (student["step"], state["step"]) == (ended.trained.kept_step, 9)
    assert student["content"] == ended.weights


def test_train_validates_at_its_steps_alone_and_at_the_end(store):
    ended = train(store, steps=8, validation_per_class=2, validate_every=3)
    looked = [row["step"] + 1 for row in ended.steps() if row["validation_accuracy"] is not None]
    assert looked == [3, 6, 8]
    assert train(store, steps=2).trained.validation_accuracy is None


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16"}, {"cutmix": 1.0}, {"sizes": "16,24"}, {"label_smoothing": 0.2}, {"clip_norm": 0.1},
        {"optimizer": "adamw", "rate": 0.003}, {"schedule": "one-cycle"}, {"warmup_steps": 3}, {"body_rate": 0.1},
        {"average": 0.0}, {"weight_decay": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_train_option_changes_the_weights(store, plain_weights, options):
    ended = train(store, steps=4, **options)
    assert ended.weights != plain_weights
    assert all(abs(row["loss"]) < 20 for row in ended.steps())


@pytest.fixture(scope="module")
def plain_weights(made_colours, tmp_path_factory):
    store = shutil.copytree(made_colours.store, tmp_path_factory.mktemp("plain") / "store")
    return train(store, steps=4).weights


def test_train_rate_follows_its_schedule(store):
    rates = [row["rate"] for row in train(store, steps=10, schedule="one-cycle", rate=0.25).steps()]
    assert rates[0] == pytest.approx(0.01)
    assert rates.index(max(rates)) == 3
    assert max(rates) == pytest.approx(0.25)


def test_train_draws_a_size_for_each_step(store, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "labelmill.tasks.train.loop.TrainingBatch",
        lambda **found: seen.append(found["images"].shape[-1]) or TrainingBatch(**found),
    )
    train(store, steps=6, sizes="16,24,32")
    assert seen == [(16, 24, 32)[hash_seed("size", 0, step) % 3] for step in range(6)]
    assert len(set(seen)) > 1


@pytest.fixture
def stopping():
    """Asks to stop after the first step."""
    yield lambda done, reused: stop.ask_to_stop() if done else None
    stop._asked.clear()


def test_train_asked_to_stop_ends_before_the_next_step(store, stopping):
    plan = plan_training(parameters_of(store, steps=6, checkpoint_every=1))
    with pytest.raises(WorkFailed, match="stopped on request"):
        train_process(plan, on_steps=stopping, on_images=lambda done, rejected: None)
    stop._asked.clear()
    assert train(store, steps=6, checkpoint_every=1).trained.loop.started_at == 1


def test_train_images_gone_after_the_start_are_counted(store, made_colours, tmp_path):
    own = shutil.copytree(made_colours.root / "train", tmp_path / "own")
    (own / "blue/03.png").unlink()
    given = {"steps": 8, "image_root": str(own)}  # 96 images: all of them and a few again
    assert train(store, **given).trained.rejected == {"empty": 1, "missing": 1}
    rejected = train(store, cache_mb=0, seed=1, **given).trained.rejected
    assert rejected.pop("passed_over") >= 1
    assert rejected == {"empty": 1}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_train_on_a_gpu_learns_and_hands_over_weights_of_the_cpu(store, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ended = train(store, objective="uda", steps=40, device="cuda", precision=precision)
    assert ended.trained.accuracy.value > 0.9
    assert safetensors.torch.load(ended.weights)["head.weight"].device.type == "cpu"
