"""Uris of members: what is written is read back, and no file's path is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.schemas.members import (
    ByteRange,
    DeflatedRange,
    LmdbValue,
    ParquetCell,
    PixelPlanes,
    name_member,
    split_member,
)

numbers = st.integers(0, 2**60)
sides = st.integers(1, 99_999)
members = st.one_of(
    st.builds(ByteRange, offset=numbers, length=numbers),
    st.builds(DeflatedRange, offset=numbers, compressed=numbers, length=numbers),
    st.builds(LmdbValue, key=st.binary(min_size=1, max_size=60)),
    st.builds(ParquetCell, row=numbers, column=st.text(min_size=1).filter(lambda t: t.isprintable())),
    st.builds(PixelPlanes, offset=numbers, height=sides, width=sides),
)
paths = st.lists(st.text(min_size=1).filter(lambda part: "/" not in part), min_size=1).map("/".join)


@given(paths, members)
def test_split_member_gives_what_was_named(container, member):
    assert split_member(name_member(container, member)) == (container, member)


@given(paths)
def test_split_member_of_a_listed_path_is_none(path):
    assert split_member(path) is None


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/key.jpg", "gs://lmdb/00", "a.tar//bytes:1", "a.tar//bytes:1+", "a.tar//bytes:-1+2",
        "a.tar//lmdb:abc", "a.tar//lmdb:AB", "a.tar//other:1+2", "//bytes:1+2", "a.tar//planes:1+0000001x1",
        "a.tar//bytes:1+2/x", "a.tar/bytes:1+2",
    ],
)  # fmt: skip
def test_split_member_of_anything_else_is_none(uri):
    assert split_member(uri) is None


def test_split_member_of_an_object_keeps_its_url():
    assert split_member("s3://bucket/a/x.tar//bytes:5+6") == ("s3://bucket/a/x.tar", ByteRange(offset=5, length=6))
