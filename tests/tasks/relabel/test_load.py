"""Loading: the whole image, by the resizer that the settings name."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labelmill.schemas.images import Reason
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.relabel.load import Loading, choose_resizer, load_at_sizes, load_each, load_resized, normalise

RESIZERS = ["pillow", "torchvision"]


def smooth(height, width):
    """A picture that differs in x and y and has no edges."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)], -1).astype(np.uint8)


@pytest.fixture
def saved(tmp_path, as_ingested):
    def save(pixels, name="a.png", **options):
        Image.fromarray(pixels).save(tmp_path / name, **options)
        return as_ingested(tmp_path / name)

    return save


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_load_resized_takes_the_whole_image_and_not_a_crop(saved, resizer, interpolation):
    picture = np.zeros((40, 400, 3), np.uint8)
    picture[:, :40], picture[:, -40:] = (255, 0, 0), (0, 0, 255)  # a rim that a centre crop would lose
    loading = Loading(size=(48, 64), interpolation=interpolation, max_pixels=10**6, resizer=resizer)
    resized = load_resized(saved(picture), loading)
    assert (resized.shape, resized.dtype) == ((48, 64, 3), np.uint8)
    assert resized[32, 1].tolist() == [255, 0, 0]
    assert resized[32, -2].tolist() == [0, 0, 255]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_load_resized_by_pillow_is_pillows_resize(saved, interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    resized = load_resized(saved(pixels), Loading(size=(32, 48), interpolation=interpolation, max_pixels=10**6))
    filtering = Image.Resampling[interpolation.upper()]
    assert np.array_equal(resized, np.asarray(Image.fromarray(pixels).resize((48, 32), filtering)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 48), (90, 130)])
def test_load_resized_by_torchvision_differs_from_pillow_by_rounding_alone(saved, interpolation, size):
    image = saved(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    exact, fast = (
        load_resized(image, Loading(size=size, interpolation=interpolation, max_pixels=10**6, resizer=resizer))
        for resizer in RESIZERS
    )
    apart = np.abs(exact.astype(int) - fast)
    assert (apart > 1).mean() <= (0.0 if interpolation == "bilinear" else 0.02)  # noise is the worst case
    assert apart.mean() < 0.25


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize(("size", "shrunk"), [((40, 60), True), ((41, 60), False), ((10, 15), True)])
def test_load_resized_scaled_decoding_starts_at_four_times_the_size(saved, monkeypatch, resizer, size, shrunk):
    image = saved(smooth(160, 240), "a.jpg", quality=95)
    loading = {"size": size, "interpolation": "bicubic", "max_pixels": 10**6, "resizer": resizer}
    whole = load_resized(image, Loading(**loading))
    scaled = load_resized(image, Loading(**loading, scaled_decoding=True))
    assert np.array_equal(whole, scaled) != shrunk
    assert np.abs(whole.astype(int) - scaled).mean() < 2


@pytest.mark.parametrize(
    ("precision", "interpolation", "resizer"),
    [
        ("fp32", "bicubic", "pillow"),
        ("fast", "bicubic", "torchvision"),
        ("fast", "bilinear", "torchvision"),
        ("fast", "lanczos", "pillow"),  # torchvision has none for tensors
    ],
)
def test_choose_resizer_is_exact_unless_fast_and_possible(precision, interpolation, resizer):
    assert choose_resizer(precision, interpolation) == resizer


@pytest.mark.parametrize("resizer", RESIZERS)
def test_load_each_gives_pixels_or_the_reason_in_order(photos, resizer):
    photos[1].path.write_bytes(b"changed")
    photos[2].path.unlink()
    loading = Loading(size=(32, 48), interpolation="bicubic", max_pixels=10**6, resizer=resizer)
    loaded = load_each(photos[:4], loading)
    assert [found.reason if isinstance(found, RejectedImage) else found.shape for found in loaded] == [
        (32, 48, 3),
        Reason.CHANGED,
        Reason.MISSING,
        (32, 48, 3),
    ]


def test_normalise_puts_each_channel_in_the_teachers_range(teacher):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 12, 3), np.uint8)
    batch = normalise(list(pixels), teacher)
    mean, std = np.array(teacher.preprocessing.mean), np.array(teacher.preprocessing.std)
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert batch.shape == (2, 3, 8, 12)
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-6)


def test_load_each_without_a_digest_takes_the_length_for_it(saved):
    image = saved(smooth(30, 40))
    loading = Loading(size=(8, 8), interpolation="bilinear", max_pixels=10**6)
    given = [replace(image, sha256=None, bytes=image.bytes + more) for more in (0, 1, -1)]
    first, *others = load_each(given, loading)
    assert not isinstance(first, RejectedImage)
    assert [rejected.reason for rejected in others] == ["changed", "changed"]


@pytest.mark.parametrize("resizers", [("pillow", "pillow"), ("torchvision", "torchvision"), ("pillow", "torchvision")])
@pytest.mark.parametrize("scaled", [False, True])
def test_load_at_sizes_gives_what_each_gives_alone(saved, resizers, scaled):
    image = saved(smooth(400, 600), "a.jpg", quality=90)
    loadings = [
        Loading(size=size, interpolation="bicubic", max_pixels=10**6, resizer=resizer, scaled_decoding=scaled)
        for size, resizer in zip([(64, 96), (48, 32)], resizers, strict=True)
    ]
    for together, loading in zip(load_at_sizes(image, loadings), loadings, strict=True):
        assert np.array_equal(together, load_resized(image, loading))
