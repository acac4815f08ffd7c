"""Predictions against softmax means of the plain models, computed here by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from labelmill.schemas.images import Reason
from labelmill.tasks import stop
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.pseudo_labels.open_predictor import open_predictor
from labelmill.tasks.pseudo_labels.predict import CpuPredictor
from labelmill.tasks.pseudo_labels.predict_on_device import DevicePredictor, PredictorsSideBySide
from labelmill.tasks.pseudo_labels.settings import PredictionSettings

SETTINGS = PredictionSettings(views="whole", top_k=8, batch_size=3, max_pixels=10**6)


def probabilities_by_hand(teachers, photos, *, views="whole", size=None):
    """(N, C): each file opened, resized as a whole and mirrored by Pillow, one at a time."""
    found = []
    for photo in photos:
        picture = Image.open(photo.path).convert("RGB")
        pictures = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)] if views == "flip" else [picture]
        found.append(torch.stack([one_by_hand(t, p, size) for t in teachers for p in pictures]).mean(0))
    return torch.stack(found)


@torch.no_grad()
def one_by_hand(teacher, picture, size):
    preprocessing = teacher.preprocessing
    height, width = size or preprocessing.native_size
    how = Image.Resampling[preprocessing.interpolation.upper()]
    pixels = torch.from_numpy(np.array(picture.resize((width, height), how))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return teacher.classifier(((pixels - mean) / std)[None])[0].softmax(0)


def dense(predictions):
    """(N, C) of predictions that keep all classes."""
    ids = torch.tensor([p.class_ids for p in predictions])
    values = torch.tensor([p.probabilities for p in predictions])
    return torch.zeros(values.shape).scatter(1, ids, values)


def on_device(teachers, settings, **options):
    return DevicePredictor(teachers, settings, device="cpu", **options)


@pytest.mark.parametrize("make", [CpuPredictor, on_device], ids=["cpu", "device"])
@pytest.mark.parametrize("views", ["whole", "flip"])
@pytest.mark.parametrize("count", [1, 2], ids=["one teacher", "two teachers of two sizes"])
def test_predict_is_the_mean_of_the_softmax_of_each_teacher_and_view(
    teacher, other_teacher, photos, make, views, count
):
    teachers = [teacher, other_teacher][:count]
    predictor = make(teachers, replace(SETTINGS, views=views), workers=2)
    told = []
    predictions = predictor.predict(photos, on_batch=lambda done, rejected: told.append((done, rejected)))
    predictor.close()
    expected = probabilities_by_hand(teachers, photos, views=views)
    assert torch.allclose(dense(predictions), expected, atol=1e-5)
    assert tuple(map(sum, zip(*told, strict=True))) == (7, 0)
    for prediction, row in zip(predictions, expected.tolist(), strict=True):
        first, second = sorted(row, reverse=True)[:2]
        assert prediction.class_ids[0] == row.index(first)
        assert prediction.confidence == prediction.probabilities[0] == pytest.approx(first, abs=1e-5)
        assert prediction.margin == pytest.approx(first - second, abs=1e-5)
        assert prediction.entropy == pytest.approx(-sum(p * math.log(p) for p in row), abs=1e-4)


def test_predict_flip_differs_from_whole(teacher, photos):
    """The test above would pass for symmetric images: these are not."""
    whole, flip = (
        dense(CpuPredictor([teacher], replace(SETTINGS, views=views), workers=1).predict(photos))
        for views in ("whole", "flip")
    )
    assert (whole - flip).abs().max() > 0.01


@pytest.mark.parametrize("make", [CpuPredictor, on_device], ids=["cpu", "device"])
def test_predict_input_size_is_for_all_teachers(teacher, other_teacher, photos, make):
    predictor = make([teacher, other_teacher], replace(SETTINGS, input_size=(64, 96)), workers=1)
    expected = probabilities_by_hand([teacher, other_teacher], photos, size=(64, 96))
    assert torch.allclose(dense(predictor.predict(photos)), expected, atol=1e-5)
    predictor.close()


@pytest.mark.parametrize("make", [CpuPredictor, on_device], ids=["cpu", "device"])
@pytest.mark.parametrize("count", [1, 2])
def test_predict_bad_images_have_their_reason_and_the_others_are_as_without_them(
    teacher, other_teacher, photos, make, count
):
    settings = replace(SETTINGS, batch_size=4)
    predictor = make([teacher, other_teacher][:count], settings, workers=2)
    whole = predictor.predict(photos)
    photos[1].path.write_bytes(b"no picture")
    for gone in (4, 5, 6):  # a whole batch
        photos[gone].path.unlink()
    told = []
    found = predictor.predict(photos, on_batch=lambda done, rejected: told.append((done, rejected)))
    predictor.close()
    reasons = [one.reason if isinstance(one, RejectedImage) else None for one in found]
    assert reasons == [None, Reason.CHANGED, None, None, *[Reason.MISSING] * 3]
    assert tuple(map(sum, zip(*told, strict=True))) == (7, 4)
    for row in (0, 2, 3):
        assert found[row].probabilities == pytest.approx(whole[row].probabilities, abs=1e-6)


class NotANumberForDark(nn.Module):
    """A classifier of two classes that gives no finite logits for images darker than grey."""

    def forward(self, images):
        bright = images.mean((1, 2, 3))
        return torch.stack([torch.where(bright > 0, bright, torch.nan), bright * 0], 1)


@pytest.mark.parametrize("make", [CpuPredictor, on_device], ids=["cpu", "device"])
def test_predict_what_is_not_finite_is_rejected_alone(teacher, tmp_path, photos, make):
    grey = []
    for number, value in enumerate((250, 10, 240)):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (value,) * 3).save(path)
        grey.append(replace(photos[0], path=path, sha256=None, bytes=path.stat().st_size))
    broken = replace(teacher, classifier=NotANumberForDark())
    predictor = make([broken], replace(SETTINGS, top_k=2), workers=1)
    found = predictor.predict(grey)
    predictor.close()
    assert [isinstance(one, RejectedImage) for one in found] == [False, True, False]
    assert found[1].reason is Reason.NOT_FINITE
    assert [one.class_ids for one in (found[0], found[2])] == [[0, 1], [0, 1]]


def test_predict_workers_change_no_byte(teacher, photos):
    one, four = (CpuPredictor([teacher], SETTINGS, workers=workers).predict(photos) for workers in (1, 4))
    assert one == four


@pytest.mark.parametrize("count", [7, 3, 0])
def test_predict_side_by_side_gives_the_bytes_of_one_alone(teacher, photos, count):
    alone, *shared = (on_device([teacher], SETTINGS, workers=1) for _ in range(3))
    together = PredictorsSideBySide(shared, batch_size=SETTINGS.batch_size)
    assert together.predict(photos[:count]) == alone.predict(photos[:count])
    assert together.facts() == alone.facts()
    together.close()
    alone.close()


def test_open_predictor_of_several_devices_shares_the_workers(teacher, photos):
    predictor = open_predictor([teacher], SETTINGS, devices=("cpu:0", "cpu:0"), workers=1)
    assert isinstance(predictor, PredictorsSideBySide)
    assert len(predictor.predict(photos)) == 7
    predictor.close()


def test_predict_fast_moves_probabilities_a_little(teacher, photos):
    fast = CpuPredictor([teacher], replace(SETTINGS, precision="fast"), workers=1)
    assert torch.allclose(dense(fast.predict(photos)), probabilities_by_hand([teacher], photos), atol=0.1)


def test_predict_asked_to_stop_stops(teacher, photos):
    stop.ask_to_stop()
    try:
        with pytest.raises(RuntimeError, match="stop"):
            CpuPredictor([teacher], SETTINGS, workers=1).predict(photos)
    finally:
        stop._asked.clear()
