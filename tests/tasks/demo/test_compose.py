"""Scenes: the same at every run, and each photo is where the scene says."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from labelmill.tasks.demo import compose
from labelmill.tasks.demo.compose import VARIANTS, Single, draw_scene, draw_single, plan_scenes, plan_singles
from labelmill.tasks.demo.photos import PHOTOS

SHADES = {photo.name: 20 + 30 * place for place, photo in enumerate(PHOTOS)}


@pytest.fixture
def plain_photos(monkeypatch):
    """Put a plain grey of its own in the place of each photo."""
    monkeypatch.setattr(compose, "load_photo", lambda photo: Image.new("RGB", (60, 40), (SHADES[photo.name],) * 3))


def test_plan_scenes_same_seed_same_scenes_and_another_seed_others():
    assert plan_scenes() == plan_scenes()
    assert plan_scenes(seed=1) != plan_scenes(seed=2)


def test_plan_scenes_every_two_photos_meet_once_in_each_direction_under_the_label_of_one():
    scenes = plan_scenes()
    fit = [photo for photo in PHOTOS if photo.in_scenes]
    pairs = Counter((frozenset(photo.name for photo in scene.photos), scene.across) for scene in scenes)
    assert len(pairs) == len(scenes) == len(fit) * (len(fit) - 1)
    assert all(scene.label == scene.photos[scene.labelled].label for scene in scenes)
    assert {scene.labelled for scene in scenes} == {0, 1}


def test_plan_image_ids_are_unique_and_below_the_folder_of_their_label():
    planned = [*plan_singles(), *plan_scenes()]
    assert len({item.image_id for item in planned}) == len(planned)
    assert all(scene.image_id.startswith(f"{scene.label}/") for scene in plan_scenes())


def test_draw_scene_each_half_holds_its_photo(plain_photos):
    for scene in plan_scenes():
        pixels = np.asarray(draw_scene(scene))
        height, width = pixels.shape[:2]
        assert (width, height) == scene.size
        for place, photo in enumerate(scene.photos):
            x1, y1, x2, y2 = scene.half(place)
            half = pixels[int(y1 * height) : int(y2 * height), int(x1 * width) : int(x2 * width)]
            assert set(half.ravel()) == {SHADES[photo.name]}
            assert half.size == pixels.size / 2


def test_draw_single_closer_variant_keeps_the_focus_and_stays_inside(monkeypatch):
    across = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    monkeypatch.setattr(compose, "load_photo", lambda photo: Image.fromarray(across).convert("RGB"))
    photo = next(photo for photo in PHOTOS if photo.name == "astronaut")  # its focus is right of the middle
    columns = np.asarray(draw_single(Single(photo=photo, variant="closer")))[0, :, 0]
    assert (columns[0], columns[-1]) == (70, 199)


def test_draw_single_variants_differ_and_are_the_same_at_every_run(demo_packages):
    for variant in VARIANTS:
        single = Single(photo=PHOTOS[0], variant=variant)
        assert draw_single(single).tobytes() == draw_single(single).tobytes()
    assert len({draw_single(Single(photo=PHOTOS[0], variant=v)).tobytes() for v in VARIANTS}) == len(VARIANTS)
