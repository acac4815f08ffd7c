"""Pixels, masks and boxes of a view go together, and a replay gives the same bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.augmentation.view_strategies import (
    boxes_in,
    keys,
    noise,
    policies,
    quick,
    single_image_policies,
    sizes,
)

from labelmill.schemas.augmentation import Flip, Policy, RandomResizedCrop
from labelmill.schemas.errors import BadInput
from labelmill.schemas.views import (
    CropStep,
    CutoutStep,
    FlipStep,
    MosaicStep,
    MosaicTile,
    ResizeStep,
    WarpStep,
    dump_steps,
    parse_steps,
)
from labelmill.tasks.augmentation.apply_view import apply_to_boxes, apply_to_mask, apply_to_pixels
from labelmill.tasks.augmentation.draw_view import draw_view
from labelmill.tasks.augmentation.geometry import describe_view, frame_after

PARTNERS = {"a.jpg": noise((31, 17), 1), "b.jpg": noise((5, 60), 2), "c.jpg": noise((1, 1), 3)}
PARTNER_SIZES = tuple((name, pixels.shape[1::-1]) for name, pixels in PARTNERS.items())


@quick
@given(policies, keys, sizes)
def test_apply_to_pixels_replay_from_the_record_is_identical(policy, key, size):
    pixels = noise(size)
    view = draw_view(policy, **key, size=size, partners=PARTNER_SIZES)
    first = apply_to_pixels(pixels, view.steps, read_partner=PARTNERS.__getitem__)
    assert first.shape == (view.height, view.width, 3)
    assert np.array_equal(pixels, noise(size)), "the image itself was changed"
    assert not np.shares_memory(first, pixels)
    replayed = apply_to_pixels(pixels, parse_steps(dump_steps(view.steps)), read_partner=PARTNERS.__getitem__)
    assert first.tobytes() == replayed.tobytes()


def find_slack(steps, size):
    """How far nearest pixels may be off their true place, in pixels of the view and of the image.

    Each resampling adds a pixel of the larger of its two frames; what comes behind it scales it along.
    """
    in_view, in_image, scale, frame = 0.0, 0.0, 1.0, size
    for step in steps:
        before, frame = frame, frame_after(step, frame)
        grows = max(frame[0] / before[0], frame[1] / before[1])
        shrinks = min(frame[0] / before[0], frame[1] / before[1])
        if isinstance(step, MosaicStep):
            grows = max(t.scaled_width / size[0] + t.scaled_height / size[1] for t in step.tiles if t.image_id is None)
        if isinstance(step, ResizeStep | MosaicStep):
            in_view = in_view * grows + max(1, grows)
            scale *= shrinks
            in_image += max(1, grows) / scale
        elif isinstance(step, WarpStep):
            in_view = 1.5 * in_view + 1
            in_image = 1.5 * in_image + 1 / scale
    return in_view, in_image


@quick
@given(st.data(), policies, keys, sizes)
def test_apply_to_boxes_boxes_stay_inside_and_masks_follow(data, policy, key, size):
    view = draw_view(policy, **key, size=size, partners=PARTNER_SIZES)
    tiles = [
        tile for step in view.steps if isinstance(step, MosaicStep) for tile in step.tiles if tile.image_id is None
    ]
    tile = tiles[0] if tiles else None
    boxes = data.draw(boxes_in(size))
    carried = apply_to_boxes(boxes, view.steps, size=size, tile=tile)
    xyxy = carried.xyxy
    assert (xyxy >= 0).all()
    assert (xyxy <= [view.width, view.height] * 2).all()
    assert (xyxy[:, 2:] > xyxy[:, :2]).all()
    assert ((carried.visible > 0) & (carried.visible <= 1 + 1e-9)).all()
    assert np.isin(carried.places, np.arange(len(boxes))).all()
    mask = np.ones((size[1], size[0]), np.uint8)
    shown = apply_to_mask(mask, view.steps, tile=tile)
    assert shown.shape == (view.height, view.width)
    assert set(np.unique(shown)) <= {0, 1}
    whole = apply_to_boxes(np.array([[0, 0, *size]], float), view.steps, size=size, tile=tile)
    hidden = any(isinstance(step, CutoutStep) for step in view.steps)  # a cutout leaves masks, and may hide a box
    assert len(whole.xyxy) or hidden or not shown.any()
    if shown.any() and len(whole.xyxy):
        rows, columns = np.nonzero(shown)
        found = np.array([columns.min(), rows.min(), -columns.max() - 1, -rows.max() - 1])
        assert (found >= whole.xyxy[0] * [1, 1, -1, -1] - find_slack(view.steps, size)[0] - 1e-6).all()


@quick
@given(single_image_policies, keys)
def test_describe_view_box_holds_all_that_is_seen(policy, key):
    size = (64, 48)
    columns, rows = np.meshgrid(np.arange(64), np.arange(48))
    view = draw_view(policy, **key, size=size)
    x1, y1, x2, y2 = view.box
    assert 0 <= x1 < x2 <= 1
    assert 0 <= y1 < y2 <= 1
    seen_x, seen_y = (apply_to_mask((grid + 1).astype(np.uint8), view.steps) for grid in (columns, rows))
    if (seen_x > 0).any():
        slack = find_slack(view.steps, size)[1] + 1e-6
        xs, ys = seen_x[seen_x > 0].astype(int) - 1, seen_y[seen_y > 0].astype(int) - 1
        assert x1 * 64 - slack <= xs.min()
        assert xs.max() + 1 <= x2 * 64 + slack
        assert y1 * 48 - slack <= ys.min()
        assert ys.max() + 1 <= y2 * 48 + slack


def test_describe_view_box_of_crop_and_translation_is_exact():
    steps = (
        CropStep(left=37, top=11, width=100, height=50), FlipStep(), ResizeStep(width=200, height=200, filter="linear"),
    )  # fmt: skip
    view = describe_view(steps, (500, 333))
    assert view.box == (37 / 500, 11 / 333, 137 / 500, 61 / 333)
    assert view.flipped
    moved = WarpStep(op="translate_x", amount=50.0, fill=(0, 0, 0), filter="nearest")
    # Mirrored, what leaves on the right is the crop's left: a quarter of its 100 pixels.
    assert describe_view((*steps, moved), (500, 333)).box == (62 / 500, 11 / 333, 137 / 500, 61 / 333)


@pytest.mark.parametrize("filter_", ["nearest", "linear"])
def test_apply_to_boxes_follow_a_bright_square(filter_):
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[30:50, 40:70] = 255
    steps = (
        CropStep(left=20, top=10, width=80, height=70), ResizeStep(width=160, height=210, filter="linear"), FlipStep(),
        WarpStep(op="translate_y", amount=-20, fill=(0, 0, 0), filter=filter_),
        WarpStep(op="rotate", amount=90, fill=(0, 0, 0), filter=filter_),
    )  # fmt: skip
    shown = apply_to_pixels(pixels, steps)[..., 0] > 127
    rows, columns = np.nonzero(shown)
    (box,) = apply_to_boxes(np.array([[40.0, 30, 70, 50]]), steps, size=(120, 90)).xyxy
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(box - found).max() <= 1, (box, found)


def test_apply_to_boxes_hidden_ones_are_left_out():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 40, 10], [30, 0, 40, 10], [5, 5, 5, 9], [-9, -9, -1, -1]], float)
    steps = (
        CropStep(left=20, top=0, width=20, height=10),
        CutoutStep(left=10, top=0, width=10, height=5, fill=(0, 0, 0)),
    )
    carried = apply_to_boxes(boxes, steps, size=(40, 10))
    assert carried.places.tolist() == [1, 2]
    assert carried.xyxy.tolist() == [[0, 0, 20, 10], [10, 0, 20, 10]]
    assert carried.visible.tolist() == [0.5 * 0.75, 0.5]
    assert apply_to_boxes(boxes, steps, size=(40, 10), min_visible=0.4).places.tolist() == [2]


def test_apply_to_pixels_mosaic_puts_each_image_in_its_place():
    colours = {"a": (9, 0, 0), "b": (0, 9, 0), "c": (0, 0, 9)}
    quarters = {None: (0, 0), "a": (6, 0), "b": (0, 4), "c": (6, 4)}
    tiles = tuple(
        MosaicTile(image_id=name, left=x, top=y, width=4 if x else 6, height=6 if y else 4, skip_left=2, skip_top=1,
                   scaled_width=8, scaled_height=7)
        for name, (x, y) in quarters.items()
    )  # fmt: skip
    step = MosaicStep(width=10, height=10, filter="linear", tiles=tiles)
    shown = apply_to_pixels(
        np.full((3, 5, 3), 7, np.uint8), (step,), read_partner=lambda name: np.full((4, 4, 3), colours[name], np.uint8)
    )
    assert shown[3, 5].tolist() == [7, 7, 7]
    assert [shown[at].tolist() for at in ((0, 6), (4, 5), (9, 9))] == [list(colours[name]) for name in "abc"]
    carried = apply_to_boxes(np.array([[0.0, 0, 2, 4], [0, 0, 1, 1]]), (step,), size=(4, 4), tile=tiles[3])
    assert carried.xyxy.tolist() == [[6, 4, 8, 10]]  # 2 of 4 pixels become 4 of 8, 2 of which are skipped


@pytest.mark.parametrize(
    ("pixels", "steps", "words"),
    [
        (np.zeros((4, 4), np.uint8), (), "expected .H, W, 3. uint8, got .4, 4. uint8"),
        (np.zeros((4, 4, 3), np.float32), (), "got .4, 4, 3. float32"),
        (np.zeros((4, 4, 3), np.uint8), (CropStep(left=2, top=0, width=3, height=1),), "does not fit into 4x4 pixels"),
    ],
)
def test_apply_to_pixels_of_another_form_are_refused(pixels, steps, words):
    with pytest.raises(BadInput, match=words):
        apply_to_pixels(pixels, steps)


def test_parse_steps_text_that_is_no_record_is_refused():
    for text in ("[1]", "{", '[{"op":"crop"}]', '[{"op":"blur","amount":1}]'):
        with pytest.raises(BadInput, match="steps: "):
            parse_steps(text)


def test_apply_to_pixels_crop_is_the_one_made_by_hand():
    pixels = noise((500, 375))
    view = draw_view(
        Policy(operations=(RandomResizedCrop(size=32), Flip(p=1))), seed=3, epoch=0, image_id="x", size=(500, 375)
    )
    crop = view.steps[0]
    part = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    only = apply_to_pixels(pixels, (crop,))
    assert np.array_equal(only, part)
    assert view.box == (
        crop.left / 500, crop.top / 375, (crop.left + crop.width) / 500, (crop.top + crop.height) / 375,
    )  # fmt: skip


def test_apply_to_mask_tile_of_another_reading_of_the_record_is_the_same_tile():
    view = draw_view(Policy(operations=("mosaic",)), seed=0, epoch=0, image_id="x", size=(8, 8), partners=PARTNER_SIZES)
    text = dump_steps(view.steps)
    own = next(tile for tile in parse_steps(text)[0].tiles if tile.image_id is None)
    mask = apply_to_mask(np.ones((8, 8), np.uint8), parse_steps(text), tile=own)
    assert mask.sum() == own.width * own.height


def test_apply_mosaic_tile_of_another_view_is_refused():
    view = draw_view(Policy(operations=("mosaic",)), seed=0, epoch=0, image_id="x", size=(8, 8), partners=PARTNER_SIZES)
    strange = view.steps[0].tiles[0].model_copy(update={"scaled_width": 9999})
    for tile in (strange, None):
        with pytest.raises(BadInput, match="mosaic: tile: expected the tile that the mask belongs to"):
            apply_to_mask(np.ones((8, 8), np.uint8), view.steps, tile=tile)
        with pytest.raises(BadInput, match="mosaic: tile: expected the tile that the boxes belong to"):
            apply_to_boxes(np.ones((1, 4)), view.steps, size=(8, 8), tile=tile)
