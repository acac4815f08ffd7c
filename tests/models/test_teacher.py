import json
import urllib.request

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from labelmill.models.teacher import load_teacher
from labelmill.schemas.errors import BadInput, WorkFailed

LINEAR = [
    "resnet18",
    "regnety_002",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "mobilenetv2_100",
    "densenet121",
    "mnasnet_100",
    "torchvision/resnet18",
    "torchvision/regnet_y_400mf",
    "torchvision/efficientnet_b0",
    "torchvision/mobilenet_v2",
    "torchvision/densenet121",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/mnasnet0_5",
]
PER_CELL = ["convnext_atto", "mobilenetv3_small_100", "torchvision/convnext_tiny", "torchvision/mobilenet_v3_small"]
DEAD_PROXY = "http://127.0.0.1:9"


def build(name, num_classes=1000):
    """A classifier with random weights, batch-norm statistics included, whose logits are of ordinary size."""
    torch.manual_seed(0)
    bare = name.removeprefix("torchvision/")
    make = torchvision.models.get_model if bare != name else timm.create_model
    model = make(bare, num_classes=num_classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def random_logits(model, images):
    """Scale the last layer so that logits spread by about three, as a trained teacher's do."""
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.normal_(last.bias)
    with torch.no_grad():
        last.weight *= 3 / model(images).sub(last.bias).std()
    return model


@pytest.fixture
def images():
    return torch.randn((2, 3, 96, 128), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path, images):
    def save(name, num_classes=1000):
        path = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(random_logits(build(name, num_classes), images).state_dict(), path)
        return str(path)

    return save


@pytest.mark.parametrize("name", LINEAR)
def test_load_teacher_linear_head_gives_the_classifiers_logits_in_the_mean(name, saved, images):
    teacher = load_teacher(name, weights=saved(name))

    with torch.no_grad():
        dense = teacher.model(images)
    logits = teacher.classifier_logits(images)

    assert (teacher.head, teacher.weights_matched) == ("linear", "by name")
    assert teacher.model.projection is not None
    assert dense.shape == (2, 1000, 3, 4)
    assert logits.std() > 1
    assert dense.std((2, 3)).mean() > 0.01
    torch.testing.assert_close(dense.mean((2, 3)), logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PER_CELL)
def test_load_teacher_head_with_a_norm_or_activation_runs_per_cell(name, saved, images):
    teacher = load_teacher(name, weights=saved(name))
    one_cell = images[:, :, :32, :32]

    with torch.no_grad():
        dense, single = teacher.model(images), teacher.model(one_cell)

    assert teacher.head == "per cell"
    assert dense.shape == (2, 1000, 3, 4)
    assert single.shape == (2, 1000, 1, 1)
    torch.testing.assert_close(single[:, :, 0, 0], teacher.classifier_logits(one_cell), atol=1e-4, rtol=0)
    with torch.no_grad():
        features = 3 * torch.randn_like(teacher.model.features(images))
        per_cell, pooled = teacher.model.logits_of(features).mean((2, 3)), teacher.model.head(features)
    assert (per_cell - pooled).abs().max() > 0.1


def test_load_teacher_channels_last_features_give_a_map_of_rows_and_columns(saved):
    name = "swin_tiny_patch4_window7_224"
    images = torch.randn((1, 3, 224, 224), generator=torch.Generator().manual_seed(1))
    model = build(name, 5)
    path = saved("resnet18").replace("weights", "swin")
    safetensors.torch.save_file(random_logits(model, images).state_dict(), path)

    teacher = load_teacher(name, weights=path)

    changed = images.clone()
    changed[:, :, 192:, :32] += 3  # the lower left corner
    with torch.no_grad():
        dense = teacher.model(images)
        change = (teacher.model(changed) - dense).abs().mean((0, 1))
    assert dense.shape == (1, 5, 7, 7)
    assert divmod(int(change.argmax()), 7) == (6, 0)
    torch.testing.assert_close(dense.mean((2, 3)), teacher.classifier_logits(images), atol=1e-4, rtol=0)
    with pytest.raises(BadInput, match=r"input size 96x128.*its own is 224x224"):
        teacher.map_size(96, 128)


def test_load_teacher_model_is_frozen_float_and_in_eval_mode(saved):
    teacher = load_teacher("mobilenetv3_small_100", weights=saved("mobilenetv3_small_100"))

    assert not any(m.training for m in teacher.model.modules())
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert {p.dtype for p in teacher.model.parameters()} == {torch.float32}


def test_load_teacher_class_count_is_that_of_the_file(saved):
    teacher = load_teacher("resnet18", weights=saved("resnet18", 17))

    assert teacher.num_classes == 17
    assert teacher.classes is None
    assert teacher.map_size(96, 128) == (3, 4)


def test_load_teacher_wrong_architecture_names_keys_and_shapes(saved):
    with pytest.raises(BadInput, match=r"weights 'weights.safetensors'.*missing.*unexpected"):
        load_teacher("resnet18", weights=saved("torchvision/mobilenet_v3_small"))


def test_load_teacher_deeper_model_of_the_same_names_is_refused(saved):
    with pytest.raises(BadInput, match=r"unexpected \d+: layer1.2"):
        load_teacher("resnet18", weights=saved("resnet34"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet81", "no such model.*resnet18"),
        ("resnet18.nosuch_tag", "no such weights of it; it has: resnet18.a1_in1k"),
        ("torchvision/resnet81", "no such classifier.*resnet18"),
    ],
)
def test_load_teacher_unknown_name_suggests_others(name, text, tmp_path):
    with pytest.raises(BadInput, match=f"teacher '{name}'.*{text}"):
        load_teacher(name, weights=str(tmp_path / "none.pth"))


def test_load_teacher_pretrained_without_network_asks_for_a_file(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, DEAD_PROXY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)

    with pytest.raises(WorkFailed, match=r"could not be downloaded.*give a \.safetensors"):
        load_teacher("torchvision/resnet18")


def test_load_teacher_digest_does_not_depend_on_the_file_format(saved, tmp_path):
    path = saved("resnet18", 7)
    state = safetensors.torch.load_file(path)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "run.pth")

    first, second = (load_teacher("resnet18", weights=w) for w in (path, str(tmp_path / "run.pth")))

    assert first.weights_digest == second.weights_digest
    assert first.digest == second.digest
    assert second.weights_source == "run.pth [state_dict]"


def test_load_teacher_digest_changes_with_weights_and_with_classes(saved, tmp_path):
    path = saved("resnet18", 3)
    state = safetensors.torch.load_file(path)
    state["layer1.0.conv1.weight"][0, 0, 0, 0] += 1e-3
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    (tmp_path / "classes.txt").write_text("cat\ndog\ncow\n")

    plain = load_teacher("resnet18", weights=path)
    named = load_teacher("resnet18", weights=path, classes=str(tmp_path / "classes.txt"))
    other = load_teacher("resnet18", weights=str(tmp_path / "other.safetensors"))

    assert plain.weights_digest == named.weights_digest != other.weights_digest
    assert len({plain.digest, named.digest, other.digest}) == 3


def test_facts_are_json_without_folders(saved, tmp_path):
    facts = load_teacher("resnet18", weights=saved("resnet18")).facts()

    text = json.dumps(facts)
    assert str(tmp_path) not in text
    assert facts["weights"] == "weights.safetensors"
    assert facts["classes"] == "imagenet-1k, inferred from 1000 outputs"
    assert facts["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert facts["preprocessing"]["native_size"] == [224, 224]
