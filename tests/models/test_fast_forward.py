import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
import torchvision
from torch import nn

from labelmill.models import fast_forward
from labelmill.models.classifier_split import SplitClassifier, split_at_pooling, split_timm
from labelmill.models.dense_head import make_dense
from labelmill.models.fast_forward import TOLERANCE, make_fast
from labelmill.models.fused_convolution import NOTHING, works
from labelmill.models.small_networks import conv4, resnet18_32, wrn_28_2
from labelmill.schemas.errors import BadInput

SMALL = {"wrn_28_2": wrn_28_2, "resnet18_32": resnet18_32, "conv4": conv4}
needs_fused = pytest.mark.skipif(not works(NOTHING, torch.float32), reason="this torch has no fused convolution")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Run as the engine's threads do; on a busy machine torch's own would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randomise(model):
    """Give batch norms the statistics of no training, so that folding them wrongly shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name in SMALL:
            return make_dense(split_at_pooling(randomise(SMALL[name](20)), name), name)
        if name.startswith("torchvision/"):
            model = randomise(torchvision.models.get_model(name.partition("/")[2], weights=None, num_classes=20))
            return make_dense(split_at_pooling(model, name), name)
        return make_dense(split_timm(randomise(timm.create_model(name, num_classes=20)), name), name)


@pytest.fixture(scope="module")
def lite():
    return build("tf_efficientnet_lite0")


def draw(count, size):
    return torch.randn((count, 3, *size), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(fast, model, images):
    """Return the largest difference of the logits, relative to the largest where that is above 1."""
    expected = model(images)
    return float((fast(images) - expected).abs().max() / expected.abs().max().clamp(min=1))


FAMILIES = [  # with the batch norms that have a convolution of their own before them
    ("resnet18", 20),
    ("torchvision/resnet18", 20),
    ("torchvision/regnet_y_400mf", 53),
    ("efficientnet_b0", 49),
    ("torchvision/efficientnet_b0", 49),
    ("tf_efficientnet_lite0", 49),
    ("torchvision/mobilenet_v2", 52),
    ("tf_mobilenetv3_small_100", 34),
    ("torchvision/mobilenet_v3_small", 34),
    ("densenet121", 59),
    ("convnext_atto", 0),
    ("torchvision/shufflenet_v2_x0_5", 56),
    ("tf_mixnet_s", 15),
    ("torchvision/swin_t", 0),
]


@pytest.mark.parametrize(("name", "batch_norms"), FAMILIES)
def test_make_fast_of_a_family_keeps_the_logits_and_folds(name, batch_norms):
    model = build(name)
    fast = make_fast(model, input_size=(81, 63))
    assert fast.facts()["folded"] is True
    assert fast.facts()["folded_batch_norms"] == batch_norms
    assert difference(fast, model, draw(3, (81, 63))) <= TOLERANCE


@pytest.mark.parametrize("size", [(32, 32), (33, 47)], ids=["usual", "odd"])
@pytest.mark.parametrize(
    ("name", "batch_norms", "activations", "sums"),
    [("wrn_28_2", 13, 13, 12), ("resnet18_32", 20, 17, 8), ("conv4", 4, 4, 0)],
)
@needs_fused
def test_make_fast_of_a_small_network_fuses_it_and_keeps_the_logits(name, batch_norms, activations, sums, size):
    model = build(name)
    fast = make_fast(model, input_size=size)
    facts = fast.facts()
    assert (facts["folded"], facts["folded_batch_norms"]) == (True, batch_norms)
    assert (facts["fused_activations"], facts["fused_sums"]) == (activations, sums)
    assert difference(fast, model, draw(3, size)) <= TOLERANCE


@pytest.mark.parametrize("name", SMALL)
def test_make_fast_of_a_small_network_in_bf16_stays_near_the_logits(name):
    model = build(name)
    assert difference(make_fast(model, precision="fast", input_size=(32, 32)), model, draw(3, (32, 32))) <= 0.05


@pytest.mark.parametrize(
    ("size", "counts"),
    [((64, 64), (1, 3, 16)), ((65, 97), (1, 3, 16)), ((225, 319), (1,)), ((224, 224), (3,))],
    ids=["small", "odd", "large and odd", "usual"],
)
def test_make_fast_at_any_size_and_batch_keeps_the_logits(lite, size, counts):
    fast = make_fast(lite, input_size=size)
    for count in counts:
        assert difference(fast, lite, draw(count, size)) <= TOLERANCE


def test_make_fast_leaves_the_model_as_it_is(lite):
    before = {name: value.clone() for name, value in lite.state_dict().items()}
    logits = lite(draw(2, (64, 64)))
    make_fast(lite, input_size=(64, 64))
    make_fast(lite, precision="fast", input_size=(64, 64))
    assert all(torch.equal(value, before[name]) for name, value in lite.state_dict().items())
    assert all(parameter.dtype is torch.float32 for parameter in lite.parameters())
    assert torch.equal(lite(draw(2, (64, 64))), logits)


@needs_fused
@pytest.mark.parametrize("precision", ["fp32", "fast"])
def test_make_fast_of_a_linear_head_does_not_depend_on_the_batch(lite, precision):
    fast = make_fast(lite, precision=precision, input_size=(64, 96))
    images = draw(19, (64, 96))
    whole = fast(images)
    for count in (1, 5, 16):
        assert torch.equal(torch.cat([fast(part) for part in images.split(count)]), whole)


def test_make_fast_runs_a_batch_in_pieces_without_changing_it(lite):
    fast = make_fast(lite, input_size=(64, 64))
    whole = fast(draw(7, (64, 64)))
    seen = []
    fast.piece = 3
    fast.body.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    assert torch.allclose(fast(draw(7, (64, 64))), whole, atol=1e-5)
    assert seen == [3, 3, 1]


def test_make_fast_for_several_threads_at_once_gives_the_same_logits(lite):
    fast = make_fast(lite, input_size=(64, 64))
    batches = [draw(2, (64, 64)) * (1 + number) for number in range(12)]

    def work(images):
        torch.set_num_threads(1)
        return fast(images)

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(4) as four:
        alone, together = list(one.map(work, batches)), list(four.map(work, batches))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(alone[0], alone[1])


def test_make_fast_of_precision_fast_gives_float32_logits_near_the_models(lite):
    fast = make_fast(lite, precision="fast", input_size=(96, 96))
    logits = fast(draw(4, (96, 96)))
    assert logits.dtype is torch.float32
    assert logits.shape == lite(draw(4, (96, 96))).shape
    if fast.facts()["precision"] == "bf16":
        assert TOLERANCE < difference(fast, lite, draw(4, (96, 96))) < 0.2


@pytest.mark.parametrize("name", ["convnext_atto", "tf_mobilenetv3_small_100"])
def test_make_fast_of_precision_fast_takes_families_with_other_norms_and_heads(name):
    model = build(name)
    fast = make_fast(model, precision="fast", input_size=(64, 96))
    assert fast.facts()["folded"] is True
    assert difference(fast, model, draw(3, (64, 96))) < 0.1


def test_make_fast_without_native_bf16_stays_at_fp32_and_says_why(lite, monkeypatch):
    monkeypatch.setattr(fast_forward, "why_no_bf16", lambda: "this processor is old")
    fast = make_fast(lite, precision="fast", input_size=(64, 64))
    assert (fast.facts()["precision"], fast.facts()["why_not_bf16"]) == ("fp32", "this processor is old")
    assert difference(fast, lite, draw(2, (64, 64))) <= TOLERANCE


def test_make_fast_where_bf16_is_native_says_so(lite, monkeypatch):
    monkeypatch.setattr(fast_forward, "why_no_bf16", lambda: None)
    facts = make_fast(lite, precision="fast", input_size=(64, 64)).facts()
    assert (facts["precision"], facts["why_not_bf16"]) == ("bf16", None)


def test_make_fast_keeps_a_constant_of_the_last_bias_out_of_bf16(lite, monkeypatch):
    monkeypatch.setattr(fast_forward, "why_no_bf16", lambda: None)
    shifted = copy.deepcopy(lite)
    shifted.projection.bias = nn.Parameter(lite.projection.bias - 1000, requires_grad=False)
    plain, moved = (make_fast(m, precision="fast", input_size=(64, 64))(draw(2, (64, 64))) for m in (lite, shifted))
    if not works(NOTHING, torch.bfloat16):
        pytest.skip("this torch has no fused convolution in bfloat16")
    assert (moved + 1000 - plain).abs().max() < 1e-3


def test_make_fast_without_the_private_operator_still_folds(lite, monkeypatch):
    monkeypatch.setattr("labelmill.models.fused_convolution.works", lambda *_, **__: False)
    fast = make_fast(lite, input_size=(64, 64))
    assert fast.facts()["folded_batch_norms"] == 49
    assert fast.facts()["fused_convolutions"] == 0
    assert difference(fast, lite, draw(3, (64, 64))) <= TOLERANCE


class ForksOnValues(nn.Module):
    """What no graph can hold: which way it goes depends on the values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, images):
        return self.conv(images) if images.sum() > 0 else -self.conv(images)


class TellsATensor(nn.Module):
    """What a graph holds wrongly: a tracer's stand-in is no tensor."""

    def forward(self, features):
        return features * 2 if isinstance(features, torch.Tensor) else features


def dense_of(features):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    whole = nn.Sequential(features, head).eval().requires_grad_(False)
    return make_dense(SplitClassifier(whole=whole, features=features, head=head, linear=head[2]), "odd")


@torch.no_grad()
def test_make_fast_of_a_part_that_cannot_be_traced_folds_the_rest():
    stem = nn.Sequential(ForksOnValues(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    model = dense_of(randomise(stem))
    fast = make_fast(model, input_size=(32, 40))
    assert fast.facts()["folded_batch_norms"] == 1
    for images in (draw(3, (32, 40)).abs(), -draw(3, (32, 40)).abs()):
        assert difference(fast, model, images) <= TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fast"])
def test_make_fast_of_a_model_that_folds_wrongly_runs_it_as_it_is(precision, caplog):
    model = dense_of(nn.Sequential(nn.Conv2d(3, 8, 3), TellsATensor()))
    fast = make_fast(model, precision=precision, input_size=(32, 40))
    assert fast.facts()["folded"] is False
    assert "differ by" in fast.facts()["why_not_folded"]
    assert "runs as it is" in caplog.text
    allowed = 0.05 if fast.facts()["precision"] == "bf16" else TOLERANCE
    assert difference(fast, model, draw(3, (32, 40))) <= allowed
    assert fast(draw(3, (32, 40))).dtype is torch.float32


def test_fast_model_given_another_size_refuses_it(lite):
    fast = make_fast(lite, input_size=(64, 96))
    with pytest.raises(BadInput, match=r"expected 64x96 pixels.*got 96x64"):
        fast(draw(1, (96, 64)))


def test_make_fast_for_a_size_the_model_refuses_says_so(lite):
    with pytest.raises(BadInput, match="input size 0x96"):
        make_fast(lite, input_size=(0, 96))


def test_facts_given_away_cannot_change_the_models(lite):
    fast = make_fast(lite, input_size=(64, 64))
    fast.facts()["precision"] = "other"
    assert fast.facts()["precision"] == "fp32"


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "test_convnext", "resnet18", "test_vit"]
)
@torch.no_grad()
def test_make_fast_of_an_ordinary_classifier_gives_its_logits(name):
    """Heads of one layer and of several; one that has no batch norm to fold, and none that is convolutional."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomise(timm.create_model(name, num_classes=20))
    size = (160, 160) if name == "test_vit" else (96, 128)
    fast = make_fast(model, input_size=size)
    images = draw(3, size)
    assert fast(images).shape == (3, 20)
    assert torch.allclose(fast(images), model(images), rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.allclose(fast(images.flip(3)), model(images.flip(3)), rtol=TOLERANCE, atol=TOLERANCE)
