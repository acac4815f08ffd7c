"""The short way to a JPEG's facts says what the long way says, or nothing."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmill.tasks.images.inspect_image import _inspect_opened, inspect_image
from labelmill.tasks.images.plain_jpeg import read_plain_jpeg

LIMITS = {"max_pixels": 10**6, "max_bytes": 10**6}


def encode(mode="RGB", size=(33, 21), orientation=None, **options):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)
    data = io.BytesIO()
    noise.save(data, "jpeg", **options, **({"exif": exif} if orientation is not None else {}))
    return data.getvalue()


JPEGS = {
    "colour": encode(),
    "grey": encode("L"),
    "progressive": encode(progressive=True),
    "turned": encode(orientation=6),
    "odd orientation": encode(orientation=9),
    "small tables": encode(quality=1),
    "restarts": encode(restart_marker_blocks=1),
    "comment": encode(comment=b"\xff\xd8\xff\xd9 a comment"),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_read_plain_jpeg_is_used_and_agrees_with_the_long_way(tmp_path, kind):
    assert read_plain_jpeg(JPEGS[kind]) is not None
    (tmp_path / "x").write_bytes(JPEGS[kind])
    assert inspect_image(tmp_path / "x", **LIMITS) == _inspect_opened(JPEGS[kind], max_pixels=10**6)


@pytest.mark.parametrize(
    "data",
    [
        encode("CMYK"),
        encode(icc_profile=b"profile"),
        encode()[:-20],
        encode()[:200],
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",
        b"",
        encode().replace(b"\xff\xc0\x00\x11\x08\x00\x15", b"\xff\xc0\x00\x11\x08\x00\x00"),
    ],
    ids=["CMYK", "profile", "cut", "cut in a header", "start", "nothing in it", "empty", "no height"],
)
def test_read_plain_jpeg_of_anything_else_says_nothing(data):
    assert read_plain_jpeg(data) is None


def test_inspect_image_bounds_the_pixels_on_the_short_way_too(tmp_path):
    (tmp_path / "x").write_bytes(JPEGS["colour"])
    assert inspect_image(tmp_path / "x", max_pixels=33 * 21, max_bytes=10**6).status == "done"
    assert inspect_image(tmp_path / "x", max_pixels=33 * 21 - 1, max_bytes=10**6).reason == "too_many_pixels"


@given(st.sampled_from(sorted(JPEGS)), st.integers(2, 700), st.binary(min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_read_plain_jpeg_of_a_damaged_header_never_contradicts_pillow_on_sizes(kind, place, bytes_):
    data = JPEGS[kind][:place] + bytes_ + JPEGS[kind][place + len(bytes_) :]
    short = read_plain_jpeg(data)
    long = _inspect_opened(data, max_pixels=2**32)
    if short is not None and long.width is not None:
        assert (short.width, short.height, short.mode) == (long.width, long.height, long.mode)


@pytest.mark.sample_data
def test_read_plain_jpeg_agrees_on_real_photos(sample_data):
    used = 0
    for file in ("imagenet/sample1000_short256.parquet", "coco/coco128_train2017.parquet"):
        for data in pq.read_table(sample_data / file, columns=["image"])["image"].to_pylist():
            short, long = read_plain_jpeg(data), _inspect_opened(data, max_pixels=10**9)
            if short is not None:
                used += 1
                assert (short.width, short.height, short.mode) == (long.width, long.height, long.mode)
                assert (long.status, long.exif_orientation) == ("done", short.exif_orientation)
    assert used > 1000
