"""Files of trained weights: the header's round trip, and teachers that come out of them as they went in."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from labelmill.models.students import build_student, describe_student
from labelmill.models.teacher import load_teacher
from labelmill.models.trained_weights import HEADER, TrainedFacts, encode_trained, read_trained_facts
from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput

SMALL = ("wrn_28_2", "resnet18_32", "conv4")
DIGITS = ClassList(classes=tuple(ClassName(name=str(n)) for n in range(10)), source="digits.images v1")

numbers = st.floats(-1e6, 1e6)
deviations = st.floats(1e-6, 1e6)
class_lists = st.lists(
    st.builds(ClassName, name=st.text(min_size=1, max_size=8), wnid=st.none() | st.just("n01440764")), max_size=4
)
trained_facts = st.builds(
    TrainedFacts,
    architecture=st.text(min_size=1, max_size=20),
    library=st.text(max_size=20),
    input_size=st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    mean=st.tuples(numbers, numbers, numbers),
    std=st.tuples(deviations, deviations, deviations),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
    classes=st.none() | st.builds(ClassList, classes=class_lists.map(tuple), source=st.text(max_size=8)),
)


def train_briefly(name, *, classes=DIGITS, **options):
    """Return a student after two steps on noise, so that its norms have statistics and its head is no start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = build_student(name, num_classes=len(classes), **options)
        optimizer = torch.optim.SGD(student.model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            logits = student.model(torch.randn(8, 3, *student.preprocessing.native_size))
            torch.nn.functional.cross_entropy(logits, torch.arange(8) % len(classes)).backward()
            optimizer.step()
    return student


def write(student, path, classes=DIGITS, **changes):
    facts = describe_student(student, classes).model_copy(update=changes)
    path.write_bytes(encode_trained(student.model, facts))
    return str(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "student.safetensors"


@settings(max_examples=25, deadline=None)
@given(facts=trained_facts)
def test_read_trained_facts_gives_back_what_was_encoded(facts, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    model = torch.nn.Linear(2, 2)

    path.write_bytes(encode_trained(model, facts))

    assert read_trained_facts(path) == facts
    assert encode_trained(model, facts) == path.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        safetensors.torch.save({"a": torch.zeros(1)}),
        safetensors.torch.save({"a": torch.zeros(1)}, {"format": "pt"}),
        b"",
        b"junk",
    ],
    ids=["no metadata", "other metadata", "empty", "junk"],
)
def test_read_trained_facts_of_a_file_that_is_not_ours_gives_none(path, content):
    path.write_bytes(content)

    assert read_trained_facts(path) is None


def test_read_trained_facts_of_a_pth_file_or_none_at_all_gives_none(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")

    assert read_trained_facts(tmp_path / "w.pth") is None
    assert read_trained_facts(tmp_path / "missing.safetensors") is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"revision": 2}, "got revision: "),
        ({"std": [1, 0, 1]}, r"got std\.1: "),
        ({"interpolation": "magic"}, "got interpolation: "),
        ({"more": 1}, "got more: "),
        (None, "got JSON: "),
    ],
    ids=["later", "bad number", "bad word", "unknown field", "no JSON"],
)
def test_read_trained_facts_header_that_cannot_be_read_says_where(path, change, text):
    facts = describe_student(build_student("conv4", num_classes=10), DIGITS)
    header = "{" if change is None else json.dumps({**facts.model_dump(mode="json"), **change})
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, {HEADER: header}))

    with pytest.raises(BadInput, match=rf"weights 'student.safetensors': expected a header .*{text}"):
        read_trained_facts(path)


def test_trained_facts_other_interpolation_is_refused():
    with pytest.raises(ValidationError, match="interpolation"):
        TrainedFacts(
            architecture="a", library="b", input_size=(1, 1), mean=(0, 0, 0), std=(1, 1, 1), interpolation="none",
            classes=None,
        )  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_load_teacher_small_network_trained_here_gives_the_students_logits_and_their_dense_form(name, path):
    student = train_briefly(name)
    teacher = load_teacher(name, weights=write(student, path))
    images = torch.randn((4, 3, 32, 32), generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        logits = student.model.eval()(images)
        dense = teacher.model(images)

    assert torch.equal(teacher.classifier_logits(images), logits)
    assert teacher.head == "linear"
    assert teacher.model.projection is not None
    assert dense.shape[2:] == {"wrn_28_2": (8, 8), "resnet18_32": (4, 4), "conv4": (2, 2)}[name]
    assert dense.std((2, 3)).mean() > 1e-3
    torch.testing.assert_close(dense.mean((2, 3)), logits, atol=1e-5, rtol=0)
    assert (teacher.classes, teacher.tag, teacher.weights_matched) == (DIGITS, "", "by name")


@pytest.mark.parametrize("name", ["test_efficientnet", "torchvision/mobilenet_v3_small"])
def test_load_teacher_library_model_trained_here_takes_everything_from_the_file(name, path):
    student = train_briefly(name, input_size=64)
    changes = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "box", "input_size": (64, 96)}
    teacher = load_teacher(name, weights=write(student, path, **changes))
    images = torch.randn((2, 3, 64, 96), generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        logits = student.model.eval()(images)

    assert torch.equal(teacher.classifier_logits(images), logits)
    seen = teacher.preprocessing
    assert (seen.mean, seen.std, seen.interpolation, seen.native_size) == (
        (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "box", (64, 96),
    )  # fmt: skip
    assert teacher.classes == DIGITS
    assert teacher.facts()["preprocessing"]["native_size"] == [64, 96]


def test_load_teacher_tag_of_the_same_architecture_is_no_other_architecture(path):
    weights = write(train_briefly("resnet18.a1_in1k", input_size=32), path)

    assert load_teacher("resnet18", weights=weights).preprocessing.native_size == (32, 32)


def test_load_teacher_explicit_classes_win_over_the_files(path, tmp_path):
    weights = write(train_briefly("conv4"), path)
    (tmp_path / "classes.txt").write_text("".join(f"class {n}\n" for n in range(10)))

    given, none = (load_teacher("conv4", weights=weights, classes=c) for c in (str(tmp_path / "classes.txt"), "none"))

    assert [c.name for c in given.classes.classes] == [f"class {n}" for n in range(10)]
    assert none.classes is None


def test_load_teacher_thousand_own_classes_are_not_taken_for_imagenet(path):
    thousand = ClassList(classes=tuple(ClassName(name=f"part {n}") for n in range(1000)), source="parts")
    student = build_student("conv4", num_classes=1000)

    listed = load_teacher("conv4", weights=write(student, path, thousand)).classes
    unlisted = load_teacher("conv4", weights=write(student, path, None)).classes

    assert (listed, unlisted) == (thousand, None)


@pytest.mark.parametrize("name", ["wrn_28_2", "resnet18", "torchvision/resnet18"])
def test_load_teacher_file_of_another_architecture_names_both(name, path):
    weights = write(build_student("conv4", num_classes=10), path)

    with pytest.raises(BadInput, match=rf"teacher '{name}': weights 'student.safetensors' are those of .* 'conv4'"):
        load_teacher(name, weights=weights)


def test_load_teacher_timm_and_torchvision_models_of_one_name_are_not_mixed_up(path):
    weights = write(build_student("resnet18", num_classes=10), path)

    with pytest.raises(BadInput, match="give teacher 'resnet18', or other weights"):
        load_teacher("torchvision/resnet18", weights=weights)


def test_load_teacher_header_of_another_class_count_is_refused(path):
    facts = describe_student(build_student("conv4", num_classes=10), DIGITS)
    path.write_bytes(encode_trained(build_student("conv4", num_classes=7).model, facts))

    with pytest.raises(BadInput, match="a class for each of its 7 outputs, its header lists 10"):
        load_teacher("conv4", weights=str(path))


def test_load_teacher_header_of_ours_over_other_tensors_is_refused(path):
    facts = describe_student(build_student("conv4", num_classes=10), DIGITS)
    path.write_bytes(encode_trained(build_student("wrn_28_2", num_classes=10).model, facts))

    with pytest.raises(BadInput, match="fit neither by name nor by order"):
        load_teacher("conv4", weights=str(path))


@pytest.mark.parametrize(
    "change",
    [{"mean": (0.4, 0.5, 0.5)}, {"std": (0.4, 0.5, 0.5)}, {"interpolation": "box"}, {"input_size": (48, 48)}],
    ids=lambda change: next(iter(change)),
)
def test_load_teacher_digest_depends_on_the_files_preprocessing(change, tmp_path):
    student = build_student("conv4", num_classes=10)

    plain, again, other = (
        load_teacher("conv4", weights=write(student, tmp_path / f"{n}.safetensors", **c))
        for n, c in enumerate(({}, {}, change))
    )

    assert plain.weights_digest == again.weights_digest == other.weights_digest
    assert plain.digest == again.digest != other.digest


def test_load_teacher_digest_depends_on_the_files_classes(tmp_path):
    student = build_student("conv4", num_classes=2)
    lists = (("cat", "dog"), ("dog", "cat"))
    digests = set()
    for n, names in enumerate(lists):
        classes = ClassList(classes=tuple(ClassName(name=name) for name in names), source="test")
        digests.add(load_teacher("conv4", weights=write(student, tmp_path / f"{n}.safetensors", classes)).digest)

    assert len(digests) == 2


def test_load_teacher_pretrained_small_network_asks_for_a_file():
    with pytest.raises(BadInput, match="nobody publishes weights of 'wrn_28_2'; give a"):
        load_teacher("wrn_28_2")


def test_load_teacher_file_of_a_wrapped_channels_last_model_is_that_of_the_model(path):
    student = train_briefly("conv4")
    plain = load_teacher("conv4", weights=write(student, path))
    student.model.to(memory_format=torch.channels_last)
    wrapped = torch.nn.ModuleDict({"module": student.model})
    path.write_bytes(encode_trained(wrapped, describe_student(student, DIGITS)))

    assert load_teacher("conv4", weights=str(path)).digest == plain.digest


def test_load_teacher_digest_of_a_file_trained_here_says_no_folder(path):
    facts = load_teacher("conv4", weights=write(train_briefly("conv4"), path)).facts()

    assert str(Path(path).parent) not in json.dumps(facts)
    assert (facts["weights"], facts["classes"]) == ("student.safetensors", "digits.images v1")
