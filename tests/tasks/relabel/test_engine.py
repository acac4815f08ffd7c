"""The engine: every image gets its own label, whatever its neighbours, the batch and the threads are."""

import os
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from labelmill.models.label_encoding import EncodedMap
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import Reason
from labelmill.tasks.relabel.engine import label_images
from labelmill.tasks.relabel.load import Loading, load_resized, normalise


def bytes_of(labelled):
    """All that is stored of an image, for comparison."""
    arrays = [getattr(labelled.map, f.name).tobytes() for f in fields(EncodedMap)] if labelled.map else []
    return arrays, labelled.pooled_class, labelled.pooled_prob, labelled.reason, labelled.detail


def whole_label(teacher, image, settings):
    """The classifier's own answer for an image: an independent path to what its map must say."""
    return teacher.classifier_logits(normalise([load(image, settings)], teacher))[0]


def load(image, settings):
    return load_resized(image, Loading(size=settings.input_size, interpolation="bicubic", max_pixels=10**6))


@pytest.mark.parametrize("workers", [2, 5])
def test_label_images_more_workers_give_the_same_bytes(teacher, photos, settings, workers):
    one = label_images(teacher, photos, settings, workers=1, temperature=0.7)
    many = label_images(teacher, photos, settings, workers=workers, temperature=0.7)
    assert [bytes_of(a) for a in many] == [bytes_of(b) for b in one]


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12, 13, 64])
def test_label_images_count_not_a_multiple_of_the_batch_labels_every_image_once_in_order(
    teacher, photos, settings, batch_size
):
    batches = []
    labelled = label_images(
        teacher,
        photos,
        replace(settings, batch_size=batch_size, top_k=8),
        workers=2,
        on_batch=lambda images, rejected: batches.append((images, rejected)),
    )
    assert len(labelled) == len(photos)
    assert sum(images for images, _ in batches) == len(photos)
    for image, result in zip(photos, labelled, strict=True):  # with all classes kept, the map's mean is the classifier
        logits = whole_label(teacher, image, settings)
        assert result.pooled_class == logits.argmax()
        assert result.pooled_prob == pytest.approx(float(logits.softmax(0).max()), abs=0.01)
    assert len({bytes_of(r)[0][-1] for r in labelled}) == len(photos)  # the pictures differ, so do their maps


def test_label_images_of_none_is_none(teacher, settings):
    assert label_images(teacher, [], settings, workers=2) == []


@pytest.mark.parametrize("place", [0, 1, 3])
def test_label_images_an_undecodable_image_leaves_its_neighbours_as_they_were(
    teacher, photos, settings, as_ingested, place
):
    four = photos[:4]
    before = label_images(teacher, four, settings, workers=1)
    four[place].path.write_bytes(four[place].path.read_bytes()[:300])
    four[place] = as_ingested(four[place].path)

    after = label_images(teacher, four, settings, workers=1)

    assert (after[place].map, after[place].reason) == (None, Reason.TRUNCATED)
    for old, new in (pair for at, pair in enumerate(zip(before, after, strict=True)) if at != place):
        assert new.pooled_class == old.pooled_class
        assert new.pooled_prob == pytest.approx(old.pooled_prob, abs=1e-3)
        np.testing.assert_allclose(new.map.top, old.map.top, atol=1)  # one step: float noise at another batch size


def test_label_images_all_of_a_batch_undecodable_gives_each_its_reason(teacher, photos, settings):
    for image in photos[:4]:
        image.path.unlink()
    labelled = label_images(teacher, photos, settings, workers=2)
    assert [r.reason for r in labelled] == [Reason.MISSING] * 4 + [None] * 9
    assert all(r.map for r in labelled[4:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("channel", [0, 7])
def test_label_images_logits_that_are_not_finite_reject_that_image_alone(
    teacher, photos, settings, monkeypatch, value, channel
):
    forward = teacher.model.forward
    whole = label_images(teacher, photos[:4], settings, workers=1)

    def broken(images):
        dense = forward(images)
        dense[2, channel, 1, 0] = value
        return dense

    monkeypatch.setattr(teacher.model, "forward", broken)
    labelled = label_images(teacher, photos[:4], settings, workers=1)

    assert [r.reason for r in labelled] == [None, None, Reason.NOT_FINITE, None]
    assert [bytes_of(labelled[at]) for at in (0, 1, 3)] == [bytes_of(whole[at]) for at in (0, 1, 3)]


@pytest.mark.parametrize("content", ["smaller", "larger", "other pixels", "empty"])
def test_label_images_a_file_changed_since_ingest_is_rejected_as_changed(teacher, photos, settings, content):
    image = photos[1]
    data = image.path.read_bytes()
    if content == "other pixels":
        Image.new("RGB", (80, 60), "red").save(image.path, "jpeg")
    else:
        image.path.write_bytes({"smaller": data[:-100], "larger": data + b"\0" * 5000, "empty": b""}[content])

    labelled = label_images(teacher, photos[:3], settings, workers=1)

    assert [r.reason for r in labelled] == [None, Reason.CHANGED, None]


@pytest.mark.parametrize(
    ("replace_by", "reason"),
    [
        pytest.param(lambda path: None, Reason.MISSING, id="gone"),
        pytest.param(lambda path: path.symlink_to("nowhere"), Reason.BROKEN_LINK, id="broken link"),
        pytest.param(lambda path: path.mkdir(), Reason.NOT_A_FILE, id="folder"),
        pytest.param(os.mkfifo, Reason.NOT_A_FILE, id="pipe"),
    ],
)
def test_label_images_a_file_that_is_no_longer_there_says_so(teacher, photos, settings, replace_by, reason):
    photos[0].path.unlink()
    replace_by(photos[0].path)
    assert label_images(teacher, photos[:2], settings, workers=1)[0].reason == reason


def test_label_images_too_many_pixels_is_refused_before_decoding(teacher, photos, settings):
    labelled = label_images(teacher, photos[:2], replace(settings, max_pixels=100), workers=1)
    assert [r.reason for r in labelled] == [Reason.TOO_MANY_PIXELS] * 2


@pytest.mark.parametrize(("size", "grid"), [((64, 96), (2, 3)), ((96, 64), (3, 2)), ((32, 160), (1, 5))])
def test_label_images_of_a_non_square_input_fill_the_teachers_grid(teacher, photos, settings, size, grid):
    assert teacher.map_size(*size) == grid
    labelled = label_images(teacher, photos[:3], replace(settings, input_size=size), workers=1)
    for result in labelled:
        assert len(result.map.top) == grid[0] * grid[1]
        assert len(result.map.index) == grid[0] * grid[1] * settings.top_k
        assert result.map.cells.sum() == grid[0] * grid[1]


def test_label_images_of_an_asymmetric_picture_keep_left_left(teacher, tmp_path, settings, as_ingested):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 64:] = np.random.default_rng(0).integers(0, 256, (64, 32, 3))  # only the right third differs from black
    Image.fromarray(picture).save(tmp_path / "a.png")
    image = as_ingested(tmp_path / "a.png")
    with torch.inference_mode():
        dense = teacher.model(normalise([load(image, settings)], teacher))[0]

    labelled = label_images(teacher, [image], replace(settings, top_k=1), workers=1)

    ids = labelled[0].map.classes[labelled[0].map.index].reshape(2, 3)
    assert torch.equal(torch.from_numpy(ids).long(), dense.argmax(0))


def test_label_images_a_sure_teacher_gives_a_sure_pooled_label(teacher, photos, settings, monkeypatch):
    """Softmax of stored probabilities would give almost uniform labels here: at most e / (e + 7) = 0.28."""
    forward = teacher.model.forward

    def sure(images):
        dense = forward(images)
        dense[:, 4] = dense.amax(1) + 12.0
        return dense

    monkeypatch.setattr(teacher.model, "forward", sure)
    for result in label_images(teacher, photos[:4], settings, workers=1):
        assert result.pooled_class == 4
        assert result.pooled_prob > 0.99


@pytest.mark.usefixtures("asked_to_stop")
def test_label_images_asked_to_stop_stops(teacher, photos, settings):
    seen = []
    with pytest.raises(WorkFailed, match="stopped on request"):
        label_images(teacher, photos, settings, workers=2, on_batch=lambda *counts: seen.append(counts))
    assert seen == []


def test_label_images_asked_to_stop_midway_ends_the_batches_in_work_only(teacher, photos, settings):
    from labelmill.tasks import stop

    seen = []

    def on_batch(images, rejected):
        seen.append(images)
        stop.ask_to_stop()

    try:
        with pytest.raises(WorkFailed, match="stopped on request"):
            label_images(teacher, photos, replace(settings, batch_size=1), workers=1, on_batch=on_batch)
    finally:
        stop._asked.clear()
    assert len(seen) == 1
