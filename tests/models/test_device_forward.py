"""A teacher on a device: the same logits, normalised and folded there; the teacher itself stays as it is."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from labelmill.models.device_forward import make_device_classifier, make_device_model
from labelmill.models.students import build_student, describe_student
from labelmill.models.teacher import load_teacher
from labelmill.models.trained_weights import encode_trained

CPU = torch.device("cpu")
SIZE = (64, 96)


@pytest.fixture(scope="module")
def teacher(tiny_teacher):
    return load_teacher(tiny_teacher.name, weights=tiny_teacher.weights, classes=tiny_teacher.classes)


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, *SIZE, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def normalised(pixels, teacher):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (teacher.preprocessing.mean, teacher.preprocessing.std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def make(teacher, **options):
    return make_device_model(teacher.model, teacher.preprocessing, device=CPU, input_size=SIZE, **options)


def test_make_device_model_in_fp32_gives_the_teachers_logits(teacher, pixels):
    made = make(teacher)
    expected = teacher.model(normalised(pixels, teacher))
    assert made(pixels).dtype == torch.float32
    torch.testing.assert_close(made(pixels), expected, rtol=0, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    facts = made.facts()
    assert (facts["precision"], facts["folded"]) == ("fp32", True)
    assert facts["folded_batch_norms"] == sum(isinstance(m, nn.BatchNorm2d) for m in teacher.model.modules())


@pytest.mark.parametrize("name", ["wrn_28_2", "resnet18_32", "conv4"])
def test_make_device_model_of_a_small_network_gives_its_logits(name, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = build_student(name, num_classes=4)
        for _ in range(3):
            student.model(torch.randn(8, 3, 32, 32))  # its norms gather statistics
    (tmp_path / "s.safetensors").write_bytes(encode_trained(student.model, describe_student(student, None)))
    teacher = load_teacher(name, weights=str(tmp_path / "s.safetensors"))
    pixels = torch.randint(0, 256, (3, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)

    made = make_device_model(teacher.model, teacher.preprocessing, device=CPU, input_size=(32, 32))
    whole = make_device_classifier(teacher.classifier, teacher.preprocessing, CPU)

    expected = teacher.model(normalised(pixels, teacher))
    assert made.facts()["folded"] is True
    torch.testing.assert_close(made(pixels), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(whole(pixels), expected.mean((2, 3)), rtol=0, atol=1e-4)


def test_make_device_model_leaves_the_teacher_as_it_was(teacher, pixels):
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    made = make(teacher, precision="fast")
    made(pixels)
    after = teacher.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())


def test_make_device_model_fast_is_bfloat16_but_for_the_last_bias(teacher, pixels):
    """A constant of 1000 in bfloat16 would leave the logits a step of 4."""
    shifted = replace(teacher, model=_shifted(teacher.model, 1000.0))
    made = make(shifted, precision="fast")
    expected = teacher.model(normalised(pixels, teacher))
    assert made.facts()["precision"] == "bf16"
    difference = (made(pixels) - 1000.0 - expected).abs()
    assert 1e-3 < float(difference.max()) < 0.5  # it was bfloat16, and no coarser


def _shifted(model, by):
    import copy

    shifted = copy.deepcopy(model)
    shifted.projection.bias += by
    return shifted


def test_make_device_model_whose_folding_is_wrong_runs_as_it_is(teacher, pixels, monkeypatch, caplog):
    from labelmill.models import device_forward

    def spoil(graph):
        for module in graph.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data * 2
        return 0

    spoiled = replace(teacher, model=_shifted(teacher.model, 0.0))
    monkeypatch.setattr(device_forward, "take_last_bias", lambda body, _: spoil(body) or None)
    with caplog.at_level(logging.WARNING):
        made = make(spoiled)
    assert made.facts()["folded"] is False
    assert "its logits differ by" in made.facts()["why_not_folded"]
    assert "runs as it is" in caplog.text
    torch.testing.assert_close(made(pixels), teacher.model(normalised(pixels, teacher)), rtol=0, atol=5e-5)


def test_make_device_classifier_gives_the_classifiers_logits(teacher, pixels):
    made = make_device_classifier(teacher.classifier, teacher.preprocessing, CPU)
    torch.testing.assert_close(made(pixels), teacher.classifier_logits(normalised(pixels, teacher)), rtol=0, atol=5e-5)


def test_make_device_model_turns_tf32_off(teacher):
    torch.backends.cudnn.allow_tf32 = True
    make(teacher)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
