import copy
import dataclasses

import pytest
import timm
import torch
import torchvision
from torch import nn

from labelmill.models.classifier_split import SplitClassifier, split_at_pooling, split_timm
from labelmill.models.dense_head import make_dense
from labelmill.schemas.errors import UnsupportedTeacher


class Pooled(nn.Module):
    """A head: mean over places, then `last`."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def forward(self, features):
        return self.last(features.mean((2, 3)))


def split_of(head, linear=None, features=None):
    features = features or nn.Conv2d(3, 8, 32, stride=32)
    return SplitClassifier(whole=nn.Sequential(features, head).eval(), features=features, head=head, linear=linear)


def test_make_dense_efficientnet_l2_at_475_gives_15x15x1000():
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_l2").eval()
    real = copy.deepcopy(model)
    real.classifier.to_empty(device="cpu")
    nn.init.normal_(real.classifier.weight)
    nn.init.normal_(real.classifier.bias)
    name = "tf_efficientnet_l2"
    head = split_timm(real, name)

    dense = make_dense(dataclasses.replace(split_timm(model, name), head=head.head, linear=head.linear), name)

    assert dense.head_kind == "linear"
    assert dense.projection is not None
    with torch.no_grad():
        logits = dense.to("meta")(torch.empty((1, 3, 475, 475), device="meta"))
    assert logits.shape == (1, 1000, 15, 15)


def test_make_dense_linear_head_becomes_a_convolution_of_the_same_weights():
    last = nn.Linear(8, 5)
    dense = make_dense(split_of(Pooled(last), last), "tiny")
    features = torch.randn(2, 8, 3, 4)

    assert dense.head_kind == "linear"
    expected = torch.einsum("bdhw,cd->bchw", features, last.weight) + last.bias[:, None, None]
    torch.testing.assert_close(dense.logits_of(features), expected)


@pytest.mark.parametrize(
    "last",
    [
        nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5)),
        nn.Sequential(nn.Hardswish(), nn.Linear(8, 5)),
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)),
        nn.Sequential(nn.Tanh(), nn.Linear(8, 5)),
    ],
    ids=["norm", "hardswish", "mlp", "tanh"],
)
def test_make_dense_non_linear_head_runs_per_cell_with_axes_in_place(last):
    dense = make_dense(split_of(Pooled(last), last[-1]), "tiny")
    features = torch.randn(2, 8, 3, 4)

    assert dense.head_kind == "per cell"
    assert dense.projection is None
    torch.testing.assert_close(dense.logits_of(features)[1, :, 2, 3], last(features[1, :, 2, 3]))
    torch.testing.assert_close(dense.logits_of(features)[0, :, 1, 0], last(features[0, :, 1, 0]))


def test_make_dense_affine_step_before_the_last_layer_is_not_lost():
    norm, last = nn.BatchNorm1d(8).eval(), nn.Linear(8, 5)
    norm.running_var.uniform_(0.5, 2)
    norm.running_mean.normal_()
    head = nn.Sequential(norm, last)
    dense = make_dense(split_of(Pooled(head), last), "tiny")
    features = torch.randn(2, 8, 3, 4)

    assert dense.head_kind == "linear"
    torch.testing.assert_close(dense.logits_of(features).mean((2, 3)), head(features.mean((2, 3))))


def test_make_dense_max_pooling_runs_per_cell():
    model = timm.create_model("resnet18", num_classes=5, global_pool="catavgmax").eval()

    dense = make_dense(split_timm(model, "resnet18"), "resnet18")

    assert dense.head_kind == "per cell"
    with torch.no_grad():
        images = torch.randn(1, 3, 32, 32)
        torch.testing.assert_close(dense(images)[:, :, 0, 0], model(images))


def test_make_dense_squeezenet_whose_classifier_precedes_the_pooling_keeps_its_map():
    model = torchvision.models.squeezenet1_1(num_classes=5).eval()

    dense = make_dense(split_at_pooling(model, "squeezenet1_1"), "squeezenet1_1")

    with torch.no_grad():
        images = torch.randn(1, 3, 96, 128)
        logits = dense(images)
        assert dense.head_kind == "linear"
        assert logits.shape == (1, 5, 5, 7)
        torch.testing.assert_close(logits.mean((2, 3)), model(images))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("vit_tiny_patch16_224", {}, r"expected a map of features.*\(1, 197, 192\): tokens, not places"),
        ("vgg11", {"num_classes": 5}, "looks at each place differently"),
    ],
)
def test_make_dense_timm_model_without_a_map_gives_the_reason(name, options, reason):
    model = timm.create_model(name, **options).eval()
    size = model.pretrained_cfg["input_size"][1:] if "vit" in name else (96, 128)

    with pytest.raises(UnsupportedTeacher, match=f"teacher '{name}'.*{reason}"):
        make_dense(split_timm(model, name), name, size)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("alexnet", "it pools to 6x6 and its head looks at each place differently"), ("vit_b_32", "it has none")],
)
def test_split_at_pooling_model_without_global_pooling_gives_the_reason(name, reason):
    with pytest.raises(UnsupportedTeacher, match=reason):
        split_at_pooling(torchvision.models.get_model(name).eval(), name)


def test_split_at_pooling_squeeze_and_excitation_is_not_taken_for_the_head():
    model = torchvision.models.efficientnet_b0(num_classes=5).eval()

    split = split_at_pooling(model, "efficientnet_b0")

    with torch.no_grad():
        assert split.features(torch.randn(1, 3, 96, 128)).shape == (1, 1280, 3, 4)
    assert split.linear is model.classifier[1]


def test_make_dense_halves_that_are_not_the_classifier_are_refused():
    last = nn.Linear(8, 5)
    good = split_of(Pooled(last), last)
    wrong = SplitClassifier(whole=good.whole, features=nn.Conv2d(3, 8, 32, stride=32), head=good.head, linear=last)

    with pytest.raises(UnsupportedTeacher, match="together are not the classifier"):
        make_dense(wrong, "tiny")


def test_make_dense_several_outputs_are_refused():
    class Twice(nn.Module):
        def forward(self, images):
            return images, images

    split = split_of(Pooled(nn.Linear(8, 5)))
    wrong = SplitClassifier(whole=split.whole, features=Twice(), head=split.head, linear=None)

    with pytest.raises(UnsupportedTeacher, match="got a tuple"):
        make_dense(wrong, "tiny")
