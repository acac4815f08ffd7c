"""The walk over many JPEGs says what the walk over one says, or nothing."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmill.tasks.images.plain_jpeg import read_plain_jpeg
from labelmill.tasks.images.plain_jpegs import read_plain_jpegs


def encode(mode="RGB", size=(33, 21), **options):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)
    data = io.BytesIO()
    noise.save(data, "jpeg", **options)
    return data.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
KNOWN = [
    encode(), encode("L", (300, 7)), encode(progressive=True), encode(quality=1), encode(restart_marker_blocks=1),
    encode(comment=b"\xff\xd8\xff\xd9 a comment"), encode() + b"behind the end",
]  # fmt: skip
LEFT = [
    b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"no picture", encode("CMYK"), encode(icc_profile=b"profile"),
    encode()[:-20], encode()[:200], encode(exif=EXIF), encode(comment=b"x" * 4000),
]  # fmt: skip


def facts_of(files):
    found = read_plain_jpegs(files)
    modes = {1: "L", 3: "RGB"}
    return [
        (int(w), int(h), modes[int(c)]) if known else None
        for known, w, h, c in zip(found.known, found.widths, found.heights, found.components, strict=True)
    ]


def one_by_one(files):
    found = [read_plain_jpeg(data) for data in files]
    return [None if one is None else one[:3] for one in found]


@pytest.mark.parametrize("order", [1, -1])
def test_read_plain_jpegs_knows_all_usual_files_whatever_lies_beside_them(order):
    files = [data for pair in zip(KNOWN, LEFT, strict=False) for data in pair][::order]
    assert [found is not None for found in facts_of(files)] == [data in KNOWN for data in files]
    assert facts_of(KNOWN) == one_by_one(KNOWN)


def test_read_plain_jpegs_of_no_files_and_of_files_without_bytes():
    assert facts_of([]) == []
    assert facts_of([b"", b""]) == [None, None]


@given(
    st.lists(
        st.tuples(st.sampled_from(KNOWN + LEFT), st.integers(0, 700), st.binary(max_size=4), st.integers(0, 20)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=300, deadline=None)
def test_read_plain_jpegs_of_damaged_files_never_says_what_one_by_one_does_not(damages):
    files = [
        (data[:place] + bytes_ + data[place + len(bytes_) :])[: len(data) - cut] for data, place, bytes_, cut in damages
    ]
    for many, one in zip(facts_of(files), one_by_one(files), strict=True):
        assert many is None or many == one
