"""The demo's folder of images."""

import json

import pytest

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason, Status
from labelmill.tasks.demo.build import BROKEN_ID, NOTE, build_photos
from labelmill.tasks.demo.compose import plan_scenes, plan_singles
from labelmill.tasks.images.inspect_image import inspect_image


@pytest.fixture(scope="module")
def built(tmp_path_factory, demo_packages):
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, build_photos(out)


def stamps(photos):
    return {str(p.relative_to(photos)): p.stat().st_mtime_ns for p in photos.rglob("*.jpg")}


def test_build_photos_writes_every_planned_image_and_the_broken_one(built):
    planned = {item.image_id for item in [*plan_singles(), *plan_scenes()]}
    assert set(stamps(built[1])) == planned | {BROKEN_ID}


def test_build_photos_second_run_touches_nothing_and_repairs_what_was_changed(built):
    out, photos = built
    before = stamps(photos)
    assert build_photos(out) == photos
    assert stamps(photos) == before
    spoilt = photos / plan_scenes()[0].image_id
    whole = spoilt.read_bytes()
    spoilt.write_bytes(b"")
    build_photos(out)
    assert spoilt.read_bytes() == whole


def test_build_photos_only_the_broken_image_is_rejected_as_truncated(built):
    photos = built[1]
    facts = {
        image_id: inspect_image(photos / image_id, max_pixels=10**7, max_bytes=10**7) for image_id in stamps(photos)
    }
    assert {i: f.reason for i, f in facts.items() if f.status != Status.DONE} == {BROKEN_ID: Reason.TRUNCATED}


def test_build_photos_note_says_what_each_half_holds(built):
    note = json.loads((built[0] / NOTE).read_text())
    for scene in plan_scenes():
        said = note["scenes"][scene.image_id]
        assert said["label"] == scene.label
        for place, half in enumerate(said["halves"]):
            assert tuple(half["box"]) == scene.half(place)
            assert tuple(half["acceptable"]) == scene.photos[place].acceptable


@pytest.mark.parametrize("foreign", ["folder", "file"])
def test_build_photos_of_someone_else_are_left_alone(tmp_path, foreign):
    out = tmp_path / "out"
    mine = out / "index.html" if foreign == "folder" else out
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(BadInput, match="out: expected"):
        build_photos(out)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [mine.name]
    assert mine.read_text() == "mine"
