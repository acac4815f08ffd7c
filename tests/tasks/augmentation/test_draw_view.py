"""What is drawn depends on (policy, seed, epoch, image_id) alone, fits the image, and is spread as it should be."""

import hashlib
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.augmentation.view_strategies import keys, policies, quick, sizes

from labelmill.schemas.augmentation import (
    AutoAugment,
    Cutout,
    Flip,
    Mosaic,
    MultiScale,
    PadCrop,
    Policy,
    RandAugment,
    RandomResizedCrop,
)
from labelmill.schemas.auto_augment import FACTORS, RAND_AUGMENT_LEVELS, find_amount
from labelmill.schemas.errors import BadInput
from labelmill.schemas.policy_presets import PRESETS
from labelmill.schemas.views import dump_steps, parse_steps
from labelmill.tasks.augmentation.draw_view import draw_view
from labelmill.tasks.augmentation.draws import Draws

PARTNERS = (("a.jpg", (31, 17)), ("b.jpg", (5, 60)), ("c.jpg", (1, 1)))


def draw(policy, size=(50, 40), *, seed=0, epoch=0, image_id="x.jpg", partners=PARTNERS):
    return draw_view(policy, seed=seed, epoch=epoch, image_id=image_id, size=size, partners=partners)


@quick
@given(policies, keys, sizes)
def test_draw_view_same_key_any_global_state_gives_the_same_view(policy, key, size):
    first = draw_view(policy, **key, size=size, partners=PARTNERS)
    draw(PRESETS["strong"])
    random.random(), np.random.rand(), torch.rand(())
    assert draw_view(policy, **key, size=size, partners=PARTNERS) == first
    assert parse_steps(dump_steps(first.steps)) == first.steps


def test_draw_view_of_a_known_key_is_what_it_always_was():
    """Numbers of today: when they change, every recorded digest would stand for other views; count _REVISION up."""
    view = draw(PRESETS["weak"], (500, 375), seed=7, epoch=3, image_id="n01440764/tench.JPEG")
    crop, resize, *rest = view.steps
    assert (crop.left, crop.top, crop.width, crop.height, resize.filter, len(rest)) == KNOWN
    assert Draws("a", 1).unit() == KNOWN_UNIT


KNOWN = (166, 154, 155, 179, "linear", 1)
KNOWN_UNIT = 0.2245274096893799


def test_unit_draws_are_philoxs_words_also_when_two_views_take_turns():
    one, other = Draws("a", 1), Draws("b", 1)
    drawn = [(one.unit(), other.unit()) for _ in range(100)]
    for place, name in enumerate("ab"):
        key = hashlib.blake2b(json.dumps([name, 1], separators=(",", ":")).encode(), digest_size=16).digest()
        words = np.random.Philox(key=int.from_bytes(key)).random_raw(100)
        assert [pair[place] for pair in drawn] == ((words >> np.uint64(11)) * 2.0**-53).tolist()


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"image_id": "y.jpg"}], ids=lambda c: next(iter(c)))
def test_draw_view_other_key_gives_other_views(change):
    policy = Policy(operations=(RandomResizedCrop(size=8),))
    assert draw(policy, (500, 400)).box != draw(policy, (500, 400), **change).box


def test_draw_view_other_policy_of_the_same_draws_gives_other_views():
    one, other = (Policy(operations=(RandomResizedCrop(size=8), *more)) for more in ((), (Flip(p=0),)))
    assert draw(one, (500, 400)).box != draw(other, (500, 400)).box


def test_draw_view_policy_of_another_name_gives_the_same_views():
    renamed = PRESETS["strong"].model_copy(update={"name": "mine"})
    assert draw(renamed).steps == draw(PRESETS["strong"]).steps


def test_draw_view_crops_are_spread_as_torchvisions_are():
    from torchvision.transforms import RandomResizedCrop as Theirs

    image, policy = torch.zeros(3, 375, 500), Policy(operations=(RandomResizedCrop(size=64),))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([Theirs.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)], float)
    steps = [draw(policy, (500, 375), epoch=epoch).steps[0] for epoch in range(4000)]
    ours = np.array([(step.top, step.left, step.height, step.width) for step in steps], float)
    for moment in (ours.mean(0) - theirs.mean(0), ours.std(0) - theirs.std(0)):
        assert np.abs(moment).max() < 8  # of means of 60 to 270; four standard errors


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1)], ids=str)
def test_draw_view_crop_of_a_sliver_is_its_middle(size):
    view = draw(Policy(operations=(RandomResizedCrop(size=8, scale=(0.9, 1.0)),)), size)
    crop = view.steps[0]
    assert abs((crop.left + crop.width / 2) - size[0] / 2) <= 0.5
    assert (view.width, view.height) == (8, 8)


def test_draw_view_rand_augment_uses_all_operations_evenly_and_both_directions():
    policy = Policy(operations=(RandAugment(operations=1, magnitude=30),))
    steps = [draw(policy, epoch=epoch).steps for epoch in range(2800)]
    counts = {}
    for (step,) in filter(None, steps):
        counts.setdefault(step.op, []).append(getattr(step, "amount", None))
    assert len(counts) == 13
    assert all(140 < len(amounts) < 260 for amounts in counts.values()), {k: len(v) for k, v in counts.items()}
    assert 140 < sum(not step for step in steps) < 260  # identity
    assert set(counts["rotate"]) == {30.0, -30.0}
    assert {round(amount, 6) for amount in counts["color"]} == {0.1, 1.9}


@pytest.mark.parametrize("level", range(RAND_AUGMENT_LEVELS))
def test_find_amount_every_operation_is_torchvisions_magnitude(level):
    from torchvision.transforms.v2 import RandAugment as Theirs

    names = {
        "ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x", "TranslateY": "translate_y",
        "Rotate": "rotate", "Brightness": "brightness", "Posterize": "posterize", "Solarize": "solarize",
    }  # fmt: skip
    theirs = Theirs()._AUGMENTATION_SPACE
    for name, ours in names.items():
        expected = float(theirs[name][0](RAND_AUGMENT_LEVELS, 375, 500)[level])
        expected = {"posterize": round, "solarize": lambda share: share * 255}.get(ours, float)(expected)
        if ours.startswith("translate"):
            expected = int(expected)
        assert find_amount(ours, level, RAND_AUGMENT_LEVELS, width=500, height=375) == pytest.approx(expected, abs=1e-4)
    assert len({find_amount(name, level, 31, width=9, height=9) for name in FACTORS}) == 1


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_auto_augment_sub_policies_are_the_published_ones(policy):
    import re

    from torchvision.transforms import AutoAugment as Theirs
    from torchvision.transforms import AutoAugmentPolicy

    from labelmill.schemas.auto_augment import SUB_POLICIES

    expected = [
        tuple((re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(), p, level or 0) for name, p, level in pair)
        for pair in Theirs(AutoAugmentPolicy(policy)).policies
    ]
    assert list(SUB_POLICIES[policy]) == expected


def test_draw_view_auto_augment_draws_every_pair_with_its_probability():
    policy = Policy(operations=(AutoAugment(policy="imagenet"),))
    steps = [draw(policy, epoch=epoch).steps for epoch in range(2500)]
    assert {len(made) for made in steps} == {0, 1, 2}
    solarized = [step.amount for made in steps for step in made if step.op == "solarize"]
    assert len(set(solarized)) == 5  # magnitudes 3, 4, 5, 7, 8
    assert all(step.amount > 0 for made in steps for step in made if step.op in FACTORS)


@quick
@given(keys, sizes, st.floats(0.01, 1))
def test_draw_view_cutout_lies_inside(key, size, side):
    view = draw_view(Policy(operations=(Cutout(side=side),)), **key, size=size)
    (hole,) = view.steps
    assert 1 <= hole.width <= max(1, round(side * min(size)))
    assert hole.left + hole.width <= size[0]
    assert hole.top + hole.height <= size[1]


def test_draw_view_pad_crop_reaches_every_place_and_pads_small_images():
    policy = Policy(operations=(PadCrop(padding=2),))
    places = {(step.left, step.top) for step in (draw(policy, epoch=epoch).steps[0] for epoch in range(400))}
    assert places == {(x, y) for x in range(5) for y in range(5)}
    large = draw(Policy(operations=(PadCrop(padding=0, size=(64, 64)),)), (9, 100))
    assert (large.width, large.height) == (64, 64)


def test_draw_view_multi_scale_keeps_the_shape_and_the_long_side():
    policy = Policy(operations=(MultiScale(short_sides=(100, 200), long_side_max=300),))
    made = {(view.width, view.height) for view in (draw(policy, (50, 25), epoch=epoch) for epoch in range(30))}
    assert made == {(200, 100), (300, 150)}


@quick
@given(keys, sizes, st.integers(2, 50), st.integers(2, 50))
def test_draw_view_mosaic_covers_the_frame_with_four_images(key, size, width, height):
    view = draw_view(Policy(operations=(Mosaic(size=(height, width)),)), **key, size=size, partners=PARTNERS)
    (mosaic,) = view.steps
    covered = np.zeros((height, width), int)
    for tile in mosaic.tiles:
        covered[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
        assert tile.skip_left + tile.width <= tile.scaled_width
        assert tile.skip_top + tile.height <= tile.scaled_height
    assert (covered == 1).all()
    assert sum(tile.image_id is None for tile in mosaic.tiles) == 1
    assert view.box is None


def test_draw_view_mosaic_without_other_images_is_refused():
    with pytest.raises(BadInput, match="mosaic: needs other images"):
        draw(PRESETS["mosaic"], partners=())
