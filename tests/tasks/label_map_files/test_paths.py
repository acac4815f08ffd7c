"""Paths of map files: beside nothing, below the folder, or refused."""

import pytest

from labelmill.schemas.errors import BadInput
from labelmill.tasks.label_map_files.paths import map_file_path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10026.pt"),
        ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000001.pt"),
        ("a/b.c/d.e.png", "a/b.c/d.e.pt"),
        ("a/photo", "a/photo.pt"),
        ("a/..b/ä ö.jpg", "a/..b/ä ö.pt"),
    ],
)
def test_map_file_path_is_the_images_with_another_suffix(uri, path):
    assert map_file_path(uri) == path


@pytest.mark.parametrize("uri", ["../a.jpg", "a/../../b.jpg", "a/..", "/etc/a.jpg", "", ".", "a\0b.jpg"])
def test_map_file_path_out_of_the_folder_is_refused(uri):
    with pytest.raises(BadInput, match="expected a path below the folder"):
        map_file_path(uri)
