"""The demo's photos: what is said of them holds, and what is missing is named."""

from importlib import metadata

import pytest

from labelmill.models.known_classes import imagenet_1k
from labelmill.schemas.errors import BadInput
from labelmill.tasks.demo import photos
from labelmill.tasks.demo.photos import PHOTOS, check_packages, load_photo


def test_photos_every_wnid_is_a_class_of_imagenet_and_the_label_is_acceptable():
    known = {c.wnid for c in imagenet_1k().classes}
    for photo in PHOTOS:
        assert photo.label in photo.acceptable
        assert known.issuperset(photo.acceptable)
    assert len({photo.name for photo in PHOTOS}) == len(PHOTOS)


def test_photos_every_file_is_in_its_package_and_needs_no_download(demo_packages):
    recorded = {str(f) for name in ("scikit-image", "scikit-learn") for f in metadata.distribution(name).files}
    assert {f"{p.place[0]}/{p.place[1]}/{p.file}" for p in PHOTOS} <= recorded
    assert all(load_photo(photo).mode == "RGB" for photo in PHOTOS)


def test_check_packages_missing_ones_are_named_in_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setattr(photos, "find_spec", lambda name: None)
    monkeypatch.setattr(photos, "TEACHER_PACKAGE", "no-such-teacher")
    with pytest.raises(BadInput) as caught:
        check_packages()
    text = str(caught.value)
    assert "\n" not in text
    assert all(part in text for part in ("scikit-image", "scikit-learn", "no-such-teacher"))
    assert text.endswith("pip install 'labelmill[demo]'")
