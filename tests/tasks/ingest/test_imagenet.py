"""Labels of ImageNet trees and flat validation folders."""

import subprocess
import sys

import pytest
from timm.data import ImageNetInfo

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.tasks.ingest import imagenet
from labelmill.tasks.ingest.devkit import Devkit
from labelmill.tasks.ingest.imagenet import find_imagenet_root, label_imagenet
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, list_files

FISH, SHARK, DOG = "n01440764", "n01484850", "n02110185"
DEVKIT = Devkit(
    classes=ClassList(classes=tuple(ClassName(name=w, wnid=w) for w in (FISH, SHARK, DOG)), source="test"),
    labels=(2, 0, 2),
)


def names(labels):
    return [(c.wnid, c.name) for c in labels.classes.classes]


def test_label_imagenet_tree_has_sorted_wnids_and_known_names(write_tree):
    unknown = "n99999999"
    source = write_tree(f"{unknown}/a.JPEG", f"{DOG}/b.JPEG", f"{FISH}/deeper/c.JPEG")
    labels = label_imagenet(list_files(source), devkit=None)
    assert names(labels) == [(FISH, "tench, Tinca tinca"), (DOG, "Siberian husky"), (unknown, unknown)]
    assert labels.keys == [FISH, DOG, unknown]
    assert labels.required


def test_label_imagenet_names_are_those_of_timms_interface(monkeypatch):
    wnids = [*ImageNetInfo("imagenet-22k").label_names(), "n99999999"]
    files = [ListedFile(f"{wnid}/a.JPEG", 1, 1, FileKind.FILE) for wnid in wnids]
    read = names(label_imagenet(files, devkit=None))
    monkeypatch.setattr(imagenet, "_TIMMS_NAMES", "timm/no/such/file")
    assert names(label_imagenet(files, devkit=None)) == read
    assert len(read) == 21_842
    assert ("n00004475", "organism, being") in read
    assert ("n99999999", "n99999999") in read


def test_label_imagenet_tree_is_named_without_torch():
    code = (
        "import sys\nfrom labelmill.tasks.ingest.imagenet import label_imagenet\n"
        "from labelmill.tasks.ingest.list_files import FileKind, ListedFile\n"
        "labels = label_imagenet([ListedFile('n01440764/a.JPEG', 1, 1, FileKind.FILE)], devkit=None)\n"
        "print(labels.classes.classes[0].name, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "tench, Tinca tinca False\n"


def test_label_imagenet_file_outside_wnid_folders_has_no_label(write_tree):
    source = write_tree(f"{FISH}/a.JPEG", "notes.txt", "other/b.JPEG", f"{DOG}.JPEG", "n123/c.JPEG", f"x/{DOG}/d.JPEG")
    files = list_files(source)
    labels = label_imagenet(files, devkit=None)
    assert {f.path: k for f, k in zip(files, labels.keys, strict=True) if k} == {f"{FISH}/a.JPEG": FISH}


def test_label_imagenet_tree_with_devkit_takes_all_its_classes(write_tree):
    labels = label_imagenet(list_files(write_tree(f"{DOG}/a.JPEG")), devkit=DEVKIT)
    assert labels.classes == DEVKIT.classes
    assert labels.keys == [DOG]


def test_label_imagenet_tree_with_wnid_unknown_to_devkit_raises(write_tree):
    with pytest.raises(BadInput, match=r"1 of 2 classes are not among the 3 of the devkit: n99999999"):
        label_imagenet(list_files(write_tree(f"{DOG}/a.JPEG", "n99999999/b.JPEG")), devkit=DEVKIT)


def test_label_imagenet_flat_folder_is_labelled_by_ground_truth(write_tree):
    source = write_tree(*(f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3, 4)), "other.JPEG")
    labels = label_imagenet(list_files(source), devkit=DEVKIT)
    assert labels.keys == [DOG, FISH, DOG, None, None]
    assert labels.classes == DEVKIT.classes
    assert labels.required


def test_label_imagenet_flat_folder_without_devkit_raises_naming_it(write_tree):
    with pytest.raises(BadInput, match=r"^devkit: "):
        label_imagenet(list_files(write_tree("ILSVRC2012_val_00000001.JPEG")), devkit=None)


def test_label_imagenet_unreadable_wnid_folder_keeps_its_class():
    locked = ListedFile(path=DOG, size=None, mtime_ns=None, kind=FileKind.UNREADABLE_FOLDER)
    assert label_imagenet([locked], devkit=DEVKIT).keys == [DOG]


@pytest.mark.parametrize(
    ("paths", "below"),
    [
        ([f"{FISH}/a.JPEG"], ""),
        ([f"train/{FISH}/a.JPEG", f"val/{FISH}/b.JPEG"], "train"),
        ([f"{FISH}/a.JPEG", f"train/{DOG}/a.JPEG"], ""),
        ([f"other/{FISH}/a.JPEG"], ""),
        (["train/ILSVRC2012_val_00000001.JPEG"], "train"),
        (["ILSVRC2012_val_00000001.JPEG", f"train/{DOG}/a.JPEG"], ""),
        (["train/cat/a.JPEG"], ""),
        ([f"train/{FISH}"], ""),
    ],
    ids=["tree", "split", "tree-first", "other-split", "flat-split", "flat-first", "no-imagenet", "file-like-a-wnid"],
)
def test_find_imagenet_root_takes_split_only_when_needed(write_tree, paths, below):
    source = str(write_tree(*paths))
    assert find_imagenet_root(source, "train") == (f"{source}/{below}" if below else source)


def test_find_imagenet_root_missing_source_is_left_to_the_listing(tmp_path):
    assert find_imagenet_root(str(tmp_path / "gone"), "train") == str(tmp_path / "gone")
