import pytest

from labelmill.models.class_match import match_classes
from labelmill.models.known_classes import imagenet_1k
from labelmill.schemas.classes import ClassList, ClassName


def named(*names):
    return ClassList(classes=tuple(ClassName(name=name) for name in names), source="test")


def wnids(*ids):
    return ClassList(classes=tuple(ClassName(name=f"any {i}", wnid=i) for i in ids), source="test")


def test_match_classes_by_wnid_ignores_index_and_name():
    match = match_classes(wnids("n00000009", "n00000001"), wnids("n00000001", "n00000005", "n00000009"))

    assert (match.teacher_ids, match.how, match.reason) == ((2, 0), "wnid", None)


def test_match_classes_by_wnid_leaves_strangers_unmatched():
    dataset = ClassList(
        classes=(*wnids("n00000001", "n00000777").classes, ClassName(name="any n00000005")), source="test"
    )

    match = match_classes(dataset, wnids("n00000001", "n00000005"))

    assert (match.teacher_ids, match.how, match.matched, match.unmatched) == ((0, None, None), "wnid", 1, 2)


@pytest.mark.parametrize(
    ("name", "teacher_id"),
    [
        ("tench", 0),
        ("Tinca_TINCA", 0),
        ("  tench ,  tinca tinca", 0),
        ("gold", None),
        ("suit, maillot", None),
        ("maillot", None),
        ("maillot, tank suit", 3),
        ("Maillot,tank_suit", 3),
        ("tank suit", 3),
        ("tench, goldfish", None),
        ("0", None),
    ],
)
def test_match_classes_by_name_takes_any_synonym_that_is_not_ambiguous(name, teacher_id):
    teacher = named("tench, Tinca tinca", "goldfish", "maillot", "maillot, tank suit")

    assert match_classes(named(name, "goldfish"), teacher).teacher_ids == (teacher_id, 1)


def test_match_classes_imagenet_names_leave_cranes_and_maillot_unmatched():
    teacher = imagenet_1k()

    match = match_classes(named("crane", "maillot", "tench", "tabby cat"), teacher)

    assert match.teacher_ids == (None, None, 0, 281)
    assert (match.how, match.matched, match.unmatched, match.ambiguous) == ("name", 2, 2, 2)


def test_match_classes_name_twice_in_the_dataset_is_ambiguous():
    match = match_classes(named("crane", "crane", "tench"), named("tench", "crane"))

    assert (match.teacher_ids, match.ambiguous) == ((None, None, 0), 2)


def test_match_classes_of_a_teacher_trained_on_the_dataset_matches_each_with_itself():
    digits = named(*map(str, range(10)))
    alike = named("cat", "Cat", "a, b", "b", "_")

    assert match_classes(digits, digits).teacher_ids == tuple(range(10))
    match = match_classes(alike, alike.model_copy(update={"source": "its file"}))

    assert (match.teacher_ids, match.how, match.ambiguous) == ((0, 1, 2, 3, 4), "name", 0)
    assert match_classes(alike, named("Cat", "cat", "a, b", "b", "_")).teacher_ids == (None, None, 2, None, None)


def test_match_classes_digits_in_another_order_are_matched_by_name():
    teacher = named(*map(str, reversed(range(10))))

    match = match_classes(named(*map(str, range(10))), teacher)

    assert (match.teacher_ids, match.how) == (tuple(reversed(range(10))), "name")


def test_match_classes_equal_lists_with_a_name_twice_stay_ambiguous():
    twice = named("crane", "crane", "tench")

    assert match_classes(twice, twice).teacher_ids == (None, None, 2)


def test_match_classes_wnids_against_names_are_matched_by_name():
    dataset = ClassList(classes=(ClassName(name="goldfish", wnid="n01443537"),), source="test")

    match = match_classes(dataset, named("tench", "goldfish"))

    assert (match.teacher_ids, match.how) == ((1,), "name")


@pytest.mark.parametrize(
    ("dataset", "teacher", "reason"),
    [
        (None, named("a"), "the dataset has no class list"),
        (named("a", "b"), None, "the teacher's class list is not known"),
        (named("0", "1"), named("cat", "dog"), "no name of the dataset's 2 classes (0; 1) is among the teacher's 2"),
        (wnids("n00000001"), wnids("n00000002"), "no wnid of the dataset's 1 classes (n00000001) is among"),
        (named("crane"), named("crane", "crane"), "1 fit more than one class"),
    ],
    ids=["no dataset", "no teacher", "names", "wnids", "ambiguous"],
)
def test_match_classes_nothing_in_common_gives_the_reason(dataset, teacher, reason):
    match = match_classes(dataset, teacher)

    assert match.how == "none"
    assert match.teacher_ids == (None,) * (len(dataset) if dataset else 0)
    assert match.matched == 0
    assert reason in match.reason
