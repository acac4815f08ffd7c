"""Policies from names and files."""

import pytest

from labelmill.schemas.augmentation import Flip, RandAugment, RandomResizedCrop
from labelmill.schemas.errors import BadInput
from labelmill.schemas.policy_presets import PRESETS
from labelmill.tasks.augmentation.read_policy import read_policy


@pytest.mark.parametrize("name", PRESETS)
def test_read_policy_every_preset_has_its_name(name):
    assert read_policy(name).name == name


def test_read_policy_presets_draw_different_views():
    assert len({policy.digest() for policy in PRESETS.values()}) == len(PRESETS)


def test_read_policy_file_with_names_and_settings(tmp_path):
    path = tmp_path / "my policy.yaml"
    path.write_text(
        "operations:\n  - op: random_resized_crop\n    size: [96, 64]\n  - flip\n  - rand_augment\nmin_visible: 0.3\n"
    )
    policy = read_policy(str(path))
    assert policy.name == "my-policy"
    assert policy.operations == (RandomResizedCrop(size=(96, 64)), Flip(), RandAugment())
    assert policy.min_visible == 0.3


def test_read_policy_name_and_visibility_leave_the_digest(tmp_path):
    one, other = tmp_path / "a.yml", tmp_path / "b.yml"
    one.write_text("{name: a, operations: [flip]}")
    other.write_text("{name: b, min_visible: 0.5, operations: [{op: flip, p: 0.5}]}")
    assert read_policy(str(one)).digest() == read_policy(str(other)).digest()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- flop", "operations.0: .*'random_resized_crop', 'pad_crop'"),
        ("- {op: rand_augment, magnitude: 31}", "operations.0.rand_augment.magnitude: .* 30"),
        ("- {op: rand_augment, magnitude: strong}", "operations.0.rand_augment.magnitude: .*integer"),
        ("- {op: auto_augment, policy: coco}", "operations.0.auto_augment.policy: .*'cifar10', 'imagenet' or 'svhn'"),
        ("- {op: flip, p: 1.5}", "operations.0.flip.p: "),
        ("- {op: flip, chance: 1}", "operations.0.flip.chance: Extra inputs"),
        ("- {op: random_resized_crop, scale: [0.5, 0.1]}", "scale: expected .least, largest., positive, not above 1"),
        ("- flip\n- mosaic", "operations: mosaic can only come first"),
        ("operation: []", "operations: Field required"),
        ("flip", "expected a mapping with operations, got str"),
        ("- [", "no YAML: "),
        ("", "got NoneType"),
        ("!!python/object/apply:os.system [ls]", "no YAML: "),
    ],
)
def test_read_policy_what_is_wrong_is_named(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=f"(?s)policy: .*mine.yaml: .*{words}"):
        read_policy(str(path))
