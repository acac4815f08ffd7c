"""Reading the devkit: an ILSVRC2012_ID is no class index."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from labelmill.schemas.errors import BadInput
from labelmill.tasks.ingest.devkit import GROUND_TRUTH_FILE, META_FILE, is_validation_name, read_devkit

# In the order of their ids 1, 2, 3: unlike the order of the wnids, as in the official file.
SYNSETS = [
    (1, "n02119789", "kit fox, Vulpes macrotis", 0),
    (2, "n02100735", "English setter", 0),
    (3, "n02110185", "Siberian husky", 0),
    (4, "n00001740", "entity", 3),
]
FIELDS = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]


def write_devkit(folder, *, synsets=SYNSETS, truth="1\n2\n3\n1\n", fields=FIELDS):
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, _ in fields]
    rows = [tuple(row[: len(names)]) for row in synsets]
    scipy.io.savemat(folder / META_FILE, {"synsets": np.array(rows, dtype=fields)})
    (folder / GROUND_TRUTH_FILE).write_text(truth)
    return folder


def test_read_devkit_id_is_mapped_by_wnid_never_used_as_index(tmp_path):
    devkit = read_devkit(write_devkit(tmp_path))
    assert [(c.wnid, c.name) for c in devkit.classes.classes] == [
        ("n02100735", "English setter"),
        ("n02110185", "Siberian husky"),
        ("n02119789", "kit fox, Vulpes macrotis"),
    ]
    # Neither the ids (1, 2, 3, 1) nor the ids less one (0, 1, 2, 0).
    assert devkit.labels == (2, 0, 1, 2)


def test_read_devkit_files_in_data_folder_are_found(tmp_path):
    write_devkit(tmp_path / "data")
    assert read_devkit(tmp_path).labels == read_devkit(tmp_path / "data").labels


def test_read_devkit_single_synset_is_a_list_of_one(tmp_path):
    assert len(read_devkit(write_devkit(tmp_path, synsets=SYNSETS[:1], truth="1\n")).classes) == 1


def test_read_devkit_windows_line_ends_and_blank_end_are_accepted(tmp_path):
    assert read_devkit(write_devkit(tmp_path, truth="1\r\n2\r\n\r\n")).labels == (2, 0)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ILSVRC2012_val_00000001.JPEG", 2),
        ("ILSVRC2012_val_00000002.JPEG", 0),
        ("ILSVRC2012_val_00000004.png", 2),
        ("ILSVRC2012_val_00000005.JPEG", None),
        ("ILSVRC2012_val_00000000.JPEG", None),
        ("ILSVRC2012_val_1.JPEG", None),
        ("ILSVRC2012_test_00000001.JPEG", None),
        ("sub/ILSVRC2012_val_00000001.JPEG", None),
        ("readme.txt", None),
    ],
)
def test_find_label_name_gives_line_of_its_number(tmp_path, name, label):
    assert read_devkit(write_devkit(tmp_path)).find_label(name) == label


def test_is_validation_name_other_names_are_refused():
    assert is_validation_name("ILSVRC2012_val_00000001.JPEG")
    assert not is_validation_name("n01440764_1.JPEG")


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ("1\n4\n", r"line 2: expected an ILSVRC2012_ID 1 to 3, got '4'"),
        ("0\n", r"line 1: .* got '0'"),
        ("1\n\n2\n", r"line 2: .* got ''"),
        ("1\nn01440764\n", r"line 2: .* got 'n01440764'"),
        ("1 2\n", r"line 1"),
        ("-1\n", r"line 1"),
        ("\n", r"is empty"),
    ],
    ids=["too-high", "zero", "gap", "wnid", "two-in-a-line", "negative", "empty"],
)
def test_read_devkit_wrong_ground_truth_raises_with_line(tmp_path, truth, expected):
    with pytest.raises(BadInput, match=rf"^devkit: .*{GROUND_TRUTH_FILE}.*{expected}"):
        read_devkit(write_devkit(tmp_path, truth=truth))


@pytest.mark.parametrize(
    "options",
    [
        {"synsets": [(1, "n02119789", "fox", 0), (1, "n02100735", "setter", 0)]},
        {"synsets": [(1, "n02119789", "fox", 0), (2, "n02119789", "fox", 0)]},
        {"synsets": [(2, "n02119789", "fox", 0), (3, "n02100735", "setter", 0)]},
        {"synsets": [(1, "fox", "fox", 0)]},
        {"synsets": [(1, "n02119789", "", 0)]},
        {"synsets": [("one", "n02119789", "fox", 0)]},
        {"synsets": [(1, "n02119789", "fox", 3)]},
        {"fields": FIELDS[:3]},
    ],
    ids=["same-id", "same-wnid", "ids-not-from-1", "no-wnid", "no-words", "id-in-words", "only-parents", "no-field"],
)
def test_read_devkit_wrong_synsets_raise_naming_file_and_expectation(tmp_path, options):
    with pytest.raises(BadInput, match=rf"^devkit: .*{META_FILE}: expected"):
        read_devkit(write_devkit(tmp_path, **options))


@pytest.mark.parametrize("content", [b"", b"not a matlab file", b"\0" * 200, b"MATLAB 5.0" + b" " * 300])
def test_read_devkit_file_that_is_no_matlab_file_raises(tmp_path, content):
    (write_devkit(tmp_path) / META_FILE).write_bytes(content)
    with pytest.raises(BadInput, match=rf"^devkit: .*{META_FILE}: expected a MATLAB file"):
        read_devkit(tmp_path)


@pytest.mark.parametrize("name", [META_FILE, GROUND_TRUTH_FILE])
def test_read_devkit_missing_file_raises_naming_it(tmp_path, name):
    (write_devkit(tmp_path) / name).unlink()
    with pytest.raises(BadInput, match=rf"^devkit: no {name} in "):
        read_devkit(tmp_path)


@pytest.mark.sample_data
def test_read_devkit_official_files_agree_with_published_labels():
    if "LABELMILL_SAMPLE_DATA" not in os.environ:
        pytest.skip("LABELMILL_SAMPLE_DATA is not set")
    import pyarrow.parquet as pq

    folder = Path(os.environ["LABELMILL_SAMPLE_DATA"]) / "imagenet"
    devkit = read_devkit(folder / "devkit")
    published = pq.read_table(folder / "val_ground_truth.parquet")
    found = [devkit.find_label(name) for name in published.column("image_id").to_pylist()]
    assert found == published.column("label").to_pylist()
    classes = json.loads((folder / "classes.json").read_text())
    assert [c.wnid for c in devkit.classes.classes] == [c["wnid"] for c in classes]
