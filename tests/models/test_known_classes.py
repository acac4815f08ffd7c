import pytest

from labelmill.models.known_classes import imagenet_1k, read_teacher_classes
from labelmill.schemas.errors import BadInput


def test_imagenet_1k_is_in_the_order_of_sorted_wnids():
    classes = imagenet_1k().classes

    assert len(classes) == 1000
    assert [c.wnid for c in classes] == sorted(c.wnid for c in classes)
    assert (classes[0].wnid, classes[0].name) == ("n01440764", "tench, Tinca tinca")
    assert (classes[999].wnid, classes[999].name) == ("n15075141", "toilet tissue, toilet paper, bathroom tissue")


@pytest.mark.parametrize(("classes", "outputs"), [("auto", 10), ("auto", 1001), ("none", 1000)])
def test_read_teacher_classes_unknown_gives_none(classes, outputs):
    assert read_teacher_classes(classes, outputs) is None


def test_read_teacher_classes_auto_says_that_it_was_inferred():
    inferred, named = (read_teacher_classes(c, 1000) for c in ("auto", "imagenet-1k"))

    assert inferred.source == "imagenet-1k, inferred from 1000 outputs"
    assert named.source == "imagenet-1k"
    assert inferred.classes == named.classes


def test_read_teacher_classes_file_takes_wnids_names_and_both(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffn01440764\ntabby cat\nn02123045\ttabby, tabby cat\n", "utf-8")

    found = read_teacher_classes(str(path), 3)

    assert [(c.wnid, c.name) for c in found.classes] == [
        ("n01440764", "n01440764"),
        (None, "tabby cat"),
        ("n02123045", "tabby, tabby cat"),
    ]
    assert found.source == "file classes.txt"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cat\ndog\n", "expected 3 classes, one for each output, got 2"),
        ("cat\ndog\ncat\n", "each name once, got 'cat'"),
        ("n01440764\nn01440764\ta\nb\n", "each wnid once, got 'n01440764'"),
        ("cat\n\ndog\n", "line 2: expected a wnid, a name"),
        ("cat\ndog\ncow\thorse\n", "line 3: expected a wnid such as"),
        ("cat\ndog\nn01440764\t\n", "line 3: expected"),
    ],
    ids=["count", "name twice", "wnid twice", "empty line", "no wnid", "no name"],
)
def test_read_teacher_classes_bad_file_says_what_is_wrong(tmp_path, text, reason):
    path = tmp_path / "classes.txt"
    path.write_text(text)

    with pytest.raises(BadInput, match=f"classes .*{reason}"):
        read_teacher_classes(str(path), 3)


def test_read_teacher_classes_imagenet_for_other_outputs_is_refused():
    with pytest.raises(BadInput, match="expected 10 classes, one for each output, got 1000"):
        read_teacher_classes("imagenet-1k", 10)


def test_read_teacher_classes_no_such_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="expected auto, imagenet-1k, none or a text file"):
        read_teacher_classes(str(tmp_path / "none.txt"), 3)


def test_read_teacher_classes_binary_file_is_refused(tmp_path):
    (tmp_path / "classes.bin").write_bytes(b"\xff\xfe\x00\x80")

    with pytest.raises(BadInput, match="expected a text file in UTF-8"):
        read_teacher_classes(str(tmp_path / "classes.bin"), 3)
