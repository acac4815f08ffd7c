"""Crops of known content, and the numbers over them."""

import math

import pytest

from labelmill import LabelMaps
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.tasks.demo.compose import plan_scenes
from labelmill.tasks.demo.crops import (
    AREA_RANGE,
    ASPECT_RANGE,
    INSIDE_MIN,
    KnownCrop,
    draw_known_crops,
    name_alone,
    score_crops,
    share_inside,
)

LEFT, RIGHT, WHOLE = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def crop(box, acceptable, label="n00000001"):
    return KnownCrop(image_id="scene.jpg", box=box, content="a", acceptable=acceptable, label=label)


@pytest.mark.parametrize(
    ("box", "half", "share"),
    [(LEFT, LEFT, 1), (LEFT, RIGHT, 0), (WHOLE, LEFT, 0.5), ((0.4, 0.2, 0.9, 0.4), RIGHT, 0.8)],
    ids=["same", "other", "both", "mostly"],
)
def test_share_inside_is_the_share_of_the_crops_area(box, half, share):
    assert share_inside(box, half) == pytest.approx(share)


def test_draw_known_crops_each_lies_in_the_half_of_the_photo_that_it_names():
    scenes = plan_scenes()
    by_id = {scene.image_id: scene for scene in scenes}
    crops = draw_known_crops(scenes, per_scene=5)
    assert len(crops) == 5 * len(scenes)
    for known in crops:
        scene = by_id[known.image_id]
        place = [photo.name for photo in scene.photos].index(known.content)
        x1, y1, x2, y2 = known.box
        inside_x = min(x2, scene.half(place)[2]) - max(x1, scene.half(place)[0])
        inside_y = min(y2, scene.half(place)[3]) - max(y1, scene.half(place)[1])
        assert inside_x * inside_y >= INSIDE_MIN * (x2 - x1) * (y2 - y1) - 1e-12
        assert known.acceptable == scene.photos[place].acceptable
        assert known.label == scene.label
    assert {known.content for known in crops} == {photo.name for scene in scenes for photo in scene.photos}


def test_draw_known_crops_have_the_sizes_and_shapes_that_trainers_draw():
    scenes = {scene.image_id: scene for scene in plan_scenes()}
    for known in draw_known_crops(list(scenes.values()), per_scene=3):
        width, height = known.box[2] - known.box[0], known.box[3] - known.box[1]
        across, down = scenes[known.image_id].size
        assert 0 <= known.box[0] < known.box[2] <= 1 + 1e-9
        assert 0 <= known.box[1] < known.box[3] <= 1 + 1e-9
        assert AREA_RANGE[0] - 1e-9 <= width * height <= AREA_RANGE[1]
        assert ASPECT_RANGE[0] - 1e-9 <= width * across / (height * down) <= ASPECT_RANGE[1] + 1e-9


def test_draw_known_crops_same_seed_same_crops_and_another_seed_others():
    scenes = plan_scenes()
    assert draw_known_crops(scenes) == draw_known_crops(scenes)
    assert draw_known_crops(scenes, seed=2) != draw_known_crops(scenes, seed=3)


def test_score_crops_counts_what_labels_name_and_averages_the_probability_of_the_truth(hand_made_store):
    maps = LabelMaps(hand_made_store, "demo.label_maps")
    sure = 1 / (1 + 2 * math.exp(-8))  # a cell's softmax over logits 8, 0, 0
    far_left, far_right = (0.0, 0.0, 0.25, 1.0), (0.75, 0.0, 1.0, 1.0)
    crops = [
        crop(far_left, ("n00000001",)),  # named by both
        crop(far_right, ("n00000002",)),  # named by the pooled label alone
        crop(far_right, ("n00000003", "n00000002")),  # so too: one of two acceptable classes
        crop(far_right, ("n00000001",)),  # named by the single label alone
        crop(far_left, ("n00000003",)),  # by neither
    ]
    score = score_crops(maps, crops, "default")
    assert (score.crops, score.named, score.label_names) == (5, 3, 2)
    other = (1 - sure) / 2
    assert score.mean_prob == pytest.approx((sure + sure + (sure + other) + other + other) / 5, abs=1e-3)


def test_score_crops_without_crops_or_for_an_unknown_image_is_refused(hand_made_store):
    maps = LabelMaps(hand_made_store, "demo.label_maps")
    with pytest.raises(BadInput, match="expected at least one"):
        score_crops(maps, [], "default")
    lost = KnownCrop(image_id="lost.jpg", box=WHOLE, content="a", acceptable=("n00000001",), label="n00000001")
    with pytest.raises(NotInStore, match="no image 'lost"):
        score_crops(maps, [lost], "paper")


def test_name_alone_says_the_top_class_and_whether_it_is_true(hand_made_store):
    maps = LabelMaps(hand_made_store, "demo.label_maps")
    assert name_alone(maps, "scene.jpg", ("n00000001", "n00000002")).is_true
    wrong = name_alone(maps, "scene.jpg", ("n00000003",))
    assert not wrong.is_true
    assert wrong.name in {"thing 1", "thing 2"}
