"""The sample: the same images at every call, from every part, each with its own map and file."""

import pytest

from labelmill.schemas.label_maps import LabelMapMetadata
from labelmill.tasks.relabel.reinfer_sample import draw_sample
from labelmill.tasks.store import open_store

TABLE = "imagenet.label_maps"


@pytest.fixture
def version(imagenet, relabel):
    """21 maps in three parts: 8 and 5 of the first images part, 8 of the second."""
    return relabel(imagenet[1])


def draw(imagenet, version, count):
    return draw_sample(open_store(imagenet[1]), version, LabelMapMetadata.model_validate(version.metadata), count)


def test_draw_sample_is_the_same_at_every_call_and_spread_over_the_parts(imagenet, version):
    table = open_store(imagenet[1]).table(TABLE)
    ids = [image.image_id for image in draw(imagenet, version, 12).images]
    assert ids == [image.image_id for image in draw(imagenet, version, 12).images]
    assert len(set(ids)) == 12
    of_parts = [set(table.read_part(part, ["image_id"])["image_id"].to_pylist()) for part in version.parts]
    assert len(of_parts) == 3
    assert all(rows & set(ids) for rows in of_parts)


@pytest.mark.parametrize("count", [1, 20, 21, 500])
def test_draw_sample_takes_so_many_or_all_in_the_versions_order(imagenet, version, count):
    sample = draw(imagenet, version, count)
    order = open_store(imagenet[1]).table(TABLE).read(version, ["image_id"])["image_id"].to_pylist()
    ids = [image.image_id for image in sample.images]
    assert (len(ids), sample.done) == (min(count, 21), 21)
    assert ids == [image_id for image_id in order if image_id in ids]


def test_draw_sample_image_has_the_map_and_the_file_of_its_own_row(imagenet, version):
    rows = open_store(imagenet[1]).table(TABLE).read(version, ["image_id", "top", "classes"]).to_pylist()
    stored = {row["image_id"]: row for row in rows}
    for image in draw(imagenet, version, 21).images:
        assert image.file.path == str(imagenet[0] / image.image_id)
        assert image.map.top.tolist() == stored[image.image_id]["top"]
        assert image.map.classes.tolist() == stored[image.image_id]["classes"]
