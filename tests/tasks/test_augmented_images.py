"""Augmented images in a trainer: replayable in any order and by any worker, with the pooled label of what they show."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import labelmill
from labelmill.schemas.augmentation import Flip, Policy, RandAugment, RandomResizedCrop
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.parameters import AugmentParameters
from labelmill.tasks.augmentation.job import commit_views, prepare_augment
from labelmill.tasks.augmentation.shard import make_shard

POLICY = Policy(name="small", operations=(RandomResizedCrop(size=(24, 32)), Flip(), RandAugment()))
CROP = Policy(name="crop", operations=(RandomResizedCrop(size=(24, 32)), Flip()))


def as_pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_images, ingest, relabel):
    folder = tmp_path_factory.mktemp("augmented")
    ingest(make_images(folder / "train", {"n01443537": 5, "n01484850": 3}), folder / "store")
    relabel(folder / "store")
    return folder


@pytest.fixture
def images(folder):
    return ImageFolder(str(folder / "train"))


def views_of(dataset, order):
    return {place: (dataset[place][0].image.numpy().tobytes(), dataset[place][0].box.tolist()) for place in order}


def test_getitem_any_order_and_epoch_gives_the_same_views(images):
    train = labelmill.AugmentedImages(images, POLICY, seed=5, then=as_pixels)
    first = views_of(train, range(8))
    train.set_epoch(1)
    assert views_of(train, range(8)) != first
    train.set_epoch(0)
    torch.manual_seed(3)
    np.random.seed(4)
    assert views_of(train, reversed(range(8))) == first
    assert views_of(labelmill.AugmentedImages(images, POLICY, seed=6, then=as_pixels), range(8)) != first


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_set_epoch_reaches_workers_that_live_on(images):
    cv2.setNumThreads(2)  # as another library may have it; threads that a fork would lose
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (9, 9), 2)
    train = labelmill.AugmentedImages(images, POLICY, then=as_pixels)
    loader = DataLoader(train, batch_size=4, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        train.set_epoch(epoch)
        found = torch.cat([crops.image for crops, _ in loader])
        assert torch.equal(found, torch.stack([train[place][0].image for place in range(8)]))


def test_pool_label_of_a_replayed_crop_is_that_of_a_crop_made_by_hand(folder, images):
    maps = labelmill.LabelMaps(labelmill.open_store(folder / "store"), "imagenet.label_maps")
    train = labelmill.WithRows(labelmill.AugmentedImages(images, CROP, seed=2, then=as_pixels), maps)
    assert (len(train), train.left_out) == (8, 0)
    for place in range(8):
        crop, _, row = train[place]
        whole = images[place][0]
        step = train.dataset.views.view(epoch=0, image_id=train.dataset.ids[place], size=whole.size).steps[0]
        left, top, right, bottom = step.left, step.top, step.left + step.width, step.top + step.height
        box = torch.tensor([[left / whole.width, top / whole.height, right / whole.width, bottom / whole.height]])
        by_hand = whole.crop((left, top, right, bottom))
        if crop.flipped:
            by_hand = by_hand.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        shown = np.asarray(by_hand.resize((32, 24), Image.Resampling.BILINEAR), float)
        assert np.abs(crop.image.permute(1, 2, 0).numpy() - shown).mean() < 4  # the same part, by another filter
        rows = torch.tensor([row])
        assert torch.equal(maps.pool(rows, crop.box[None]), maps.pool(rows, box))


def test_recorded_views_of_the_flow_are_the_trainers(folder, images):
    policy = folder / "small.yaml"
    policy.write_text("operations: [{op: random_resized_crop, size: [24, 32]}, flip, rand_augment]\n")
    parameters = AugmentParameters(
        store=str(folder / "store"), dataset="imagenet", policy=str(policy), seed=5, epochs=2
    )
    run = prepare_augment(parameters)
    commit_views(run, [make_shard(run, shard, None) for shard in run.shards])
    views = labelmill.RecordedViews(labelmill.open_store(folder / "store"), "imagenet.views")
    assert (len(views), views.policy.digest()) == (16, POLICY.digest())
    drawn, recorded = (
        labelmill.AugmentedImages(images, source, seed=5, then=as_pixels) for source in (str(policy), views)
    )
    for epoch in (1, 0):
        drawn.set_epoch(epoch)
        recorded.set_epoch(epoch)
        assert views_of(drawn, range(8)) == views_of(recorded, (5, 2, 7, 0, 1, 3, 4, 6))
    recorded.set_epoch(2)
    with pytest.raises(NotInStore, match=r"no view of 'n01443537/n01443537_0.JPEG' in epoch 2"):
        recorded[0]


def test_loop_of_the_augmentation_page_runs(folder):
    page = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    values = {
        '"/data/imagenet/train"': repr(str(folder / "train")), "256": "4", "range(90)": "range(2)",
        "num_workers=8, persistent_workers=True": "num_workers=0",
    }  # fmt: skip
    for old, new in values.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    names = {
        "labelmill": labelmill, "ImageFolder": ImageFolder, "DataLoader": DataLoader,
        "normalise": lambda image: as_pixels(image).float(),
        "maps": labelmill.LabelMaps(labelmill.open_store(folder / "store"), "imagenet.label_maps"),
    }  # fmt: skip
    exec(code, names)
    assert names["labels"].shape == (4, 8)
    assert names["pixels"].shape == (4, 3, 224, 224)


@pytest.mark.parametrize(
    ("policy", "options", "words"),
    [
        ("wek", {}, "policy 'wek': expected weak, strong, rand-augment"),
        ("mosaic", {}, "a mosaic needs other images"),
        ("gone.yaml", {}, "policy: gone.yaml: No such file"),
        ("weak", {"ids": ["a"]}, "ids: expected one for each of 8 items, got 1"),
    ],
)
def test_augmented_images_what_cannot_be_is_refused(images, policy, options, words):
    with pytest.raises(BadInput, match=words):
        labelmill.AugmentedImages(images, policy, **options)


def test_augmented_images_of_items_without_files_need_ids():
    arrays = [np.full((9, 9, 3), value, np.uint8) for value in range(3)]
    with pytest.raises(BadInput, match="expected one with root and samples, got list; give ids"):
        labelmill.AugmentedImages(arrays, CROP)
    (crop,) = labelmill.AugmentedImages(arrays, CROP, ids=["a", "b", "c"])[2]
    assert crop.image.size == (32, 24)
    assert np.unique(np.asarray(crop.image)).tolist() == [2]
