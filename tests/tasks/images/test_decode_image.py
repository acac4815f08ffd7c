"""Decoding to an array: whatever decoder is taken, the pixels are Pillow's."""

import random
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmill.schemas.images import Reason
from labelmill.tasks.images import decode_image
from labelmill.tasks.images.decode_image import decode_array, decode_rgb, simplejpeg_decodes_alike
from labelmill.tasks.images.rejected_image import RejectedImage

MAX_PIXELS = 4_000_000


def encode(pixels, kind="jpeg", **options):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


JPEGS = [
    pytest.param({"quality": quality, "subsampling": subsampling, "progressive": progressive}, id=name)
    for name, quality, subsampling, progressive in [
        ("whole colours", 95, "4:4:4", False),
        ("half colours", 75, "4:2:0", False),
        ("half across", 60, "4:2:2", False),
        ("progressive", 85, "4:2:0", True),
    ]
] + [pytest.param({"quality": 90, "keep_rgb": True}, id="rgb in the file")]


@pytest.fixture
def used_simplejpeg(monkeypatch):
    """Names of the decoders that ran."""
    used = []
    assert isinstance(simplejpeg_decodes_alike(), bool)  # tried before it is counted
    real = decode_image._decode_by_simplejpeg

    def spy(data):
        used.append("simplejpeg")
        return real(data)

    monkeypatch.setattr(decode_image, "_decode_by_simplejpeg", spy)
    return used


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48), (37, 8)])
def test_decode_array_of_a_jpeg_is_pillows_to_the_bit(options, size, used_simplejpeg):
    data = encode(noise(*size), **options)
    expected = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode_array(data, max_pixels=MAX_PIXELS), expected)
    assert used_simplejpeg == ["simplejpeg"] * simplejpeg_decodes_alike()


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "gif", "tiff"])
def test_decode_array_of_another_format_is_decode_rgbs_and_writable(kind, used_simplejpeg):
    data = encode(noise(20, 30), kind)
    pixels = decode_array(data, max_pixels=MAX_PIXELS)
    assert np.array_equal(pixels, np.asarray(decode_rgb(data, max_pixels=MAX_PIXELS)))
    assert pixels.flags.writeable
    assert used_simplejpeg == []


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_decode_array_of_a_jpeg_without_three_channels_is_pillows_conversion(mode, used_simplejpeg):
    buffer = BytesIO()
    Image.fromarray(noise(20, 30)).convert(mode).save(buffer, "jpeg")
    pixels = decode_array(buffer.getvalue(), max_pixels=MAX_PIXELS)
    assert np.array_equal(pixels, np.asarray(Image.open(buffer).convert("RGB")))
    assert used_simplejpeg == []


def test_decode_array_where_simplejpeg_decodes_otherwise_takes_pillow(monkeypatch):
    data = encode(noise(20, 30))
    monkeypatch.setattr(decode_image, "_decode_by_simplejpeg", lambda data: np.zeros((37, 51, 3), np.uint8))
    simplejpeg_decodes_alike.cache_clear()
    try:
        assert not simplejpeg_decodes_alike()
        assert np.array_equal(decode_array(data, max_pixels=MAX_PIXELS), np.asarray(Image.open(BytesIO(data))))
    finally:
        simplejpeg_decodes_alike.cache_clear()


def test_decode_array_where_simplejpeg_gives_up_lets_pillow_say_why(monkeypatch):
    def give_up(data):
        raise ValueError("decode_jpeg")

    data = encode(noise(20, 30))
    assert isinstance(simplejpeg_decodes_alike(), bool)  # tried before it breaks
    monkeypatch.setattr(decode_image, "_decode_by_simplejpeg", give_up)
    assert np.array_equal(decode_array(data, max_pixels=MAX_PIXELS), np.asarray(Image.open(BytesIO(data))))
    with pytest.raises(RejectedImage) as rejected:
        decode_array(data[:300], max_pixels=MAX_PIXELS)
    assert rejected.value.reason is Reason.TRUNCATED


def test_decode_array_of_too_many_pixels_is_refused_undecoded(used_simplejpeg):
    with pytest.raises(RejectedImage) as rejected:
        decode_array(encode(noise(20, 30)), max_pixels=599)
    assert rejected.value.reason is Reason.TOO_MANY_PIXELS
    assert used_simplejpeg == []


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_decode_array_of_damaged_bytes_does_what_decode_rgb_does(seed):
    chance = random.Random(seed)
    data = bytearray(encode(noise(40, 56), quality=70, subsampling=chance.choice(["4:2:0", "4:4:4"])))
    for _ in range(chance.choice([1, 2, 10])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    answers = []
    for decode in (decode_array, decode_rgb):
        try:
            answers.append(np.asarray(decode(bytes(data), max_pixels=MAX_PIXELS)).tobytes())
        except RejectedImage as rejected:
            answers.append(rejected.reason)
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("at_least", "size"),
    [
        ((160, 200), (160, 200)),
        ((161, 100), (320, 400)),
        ((80, 100), (80, 100)),
        ((40, 50), (40, 50)),
        ((1, 1), (40, 50)),
    ],
)
@pytest.mark.parametrize("decode", [decode_array, decode_rgb])
def test_decode_at_least_a_size_shrinks_a_jpeg_by_no_more_than_that(decode, at_least, size):
    pixels = np.asarray(decode(encode(noise(320, 400)), max_pixels=MAX_PIXELS, at_least=at_least))
    assert pixels.shape == (*size, 3)


def test_decode_at_least_a_size_leaves_other_formats_whole():
    assert decode_array(encode(noise(32, 40), "png"), max_pixels=MAX_PIXELS, at_least=(4, 4)).shape == (32, 40, 3)


@pytest.mark.parametrize("options", [{"quality": 75}, {"quality": 75, "method": 0}, {"lossless": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_decode_array_of_a_webp_has_pillows_pixels(options, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 4), np.uint8)
    encoded = BytesIO()
    picture = Image.fromarray(pixels).resize((45, 33), Image.Resampling.BICUBIC).convert(mode)
    picture.save(encoded, "webp", **options)
    expected = np.asarray(decode_rgb(encoded.getvalue(), max_pixels=10**6))
    np.testing.assert_array_equal(decode_array(encoded.getvalue(), max_pixels=10**6), expected)
    with pytest.raises(RejectedImage, match="more than 1484"):
        decode_array(encoded.getvalue(), max_pixels=33 * 45 - 1)


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_decode_array_of_a_cut_webp_is_rejected(cut):
    encoded = BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(encoded, "webp")
    with pytest.raises(RejectedImage):
        decode_array(encoded.getvalue()[:-cut], max_pixels=10**6)
