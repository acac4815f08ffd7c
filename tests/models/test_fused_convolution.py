import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labelmill.models import fused_convolution
from labelmill.models.folding import record_shapes, trace_graph
from labelmill.models.fused_convolution import NOTHING, Activation, find_activation, fuse_convolutions, works

pytestmark = pytest.mark.skipif(not works(NOTHING, torch.float32), reason="this torch has no fused convolution")


def fuse(model, images):
    graph = trace_graph(model.eval().requires_grad_(False))
    expected = model(images.clone())
    fusions = fuse_convolutions(graph, record_shapes(graph, images.clone()), torch.float32)
    graph.recompile()
    outputs = graph(images.clone(memory_format=torch.channels_last))
    return fusions, torch.allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.Hardtanh(-0.5, 0.7),
        nn.LeakyReLU(0.2),
        nn.SiLU(),
        nn.Hardswish(),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.GELU(),
        nn.GELU("tanh"),
    ],
    ids=repr,
)
def test_fuse_convolutions_takes_an_activation_in_and_keeps_the_result(activation):
    fusions, same = fuse(nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), activation), torch.randn(2, 8, 7, 9))
    assert (fusions.convolutions, fusions.activations, same) == (1, 1, True)


class Step(nn.Module):
    """A convolution, and what `then(module, images)` does with it."""

    def __init__(self, then):
        super().__init__()
        self.conv, self.other = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.then = then

    def forward(self, images):
        return self.then(self, images)


def add_to_itself(step, images):
    out = step.conv(images)
    return out + out


def add_to_its_relu(step, images):
    out = step.conv(images)
    return F.relu(out) + out


def add_in_place_to_shortcut(step, images):
    shortcut = F.softplus(images)
    out = step.conv(images)
    shortcut.add_(out)
    return shortcut * 2


def write_to_input_before_sum(step, images):
    inputs = images * 1
    out = step.conv(inputs)
    return out + F.relu(inputs, inplace=True)


@pytest.mark.parametrize(
    ("then", "convolutions", "activations", "sums"),
    [
        (lambda s, x: F.relu(s.conv(x) + x), 1, 1, 1),
        (lambda s, x: x + s.conv(x), 1, 0, 1),
        (lambda s, x: F.relu(s.conv(x) + s.other(x)), 2, 1, 1),
        (lambda s, x: F.relu(s.conv(x)) + x, 1, 1, 0),
        (lambda s, x: s.conv(x) + 1, 1, 0, 0),
        (lambda s, x: s.conv(x) + x.mean((2, 3), keepdim=True), 1, 0, 0),
        (add_to_itself, 1, 0, 0),
        (add_to_its_relu, 1, 0, 0),
        (lambda s, x: torch.add(s.conv(x), x, alpha=2), 1, 0, 0),
        (lambda s, x: s.conv(x).add_(x), 1, 0, 1),
        (add_in_place_to_shortcut, 1, 0, 0),
        (write_to_input_before_sum, 1, 0, 0),
    ],
    ids=[
        "sum and relu",
        "shortcut first",
        "both branches",
        "relu before the sum",
        "a number",
        "broadcast",
        "with itself",
        "seen by two",
        "scaled",
        "into the convolution",
        "into the shortcut",
        "input written to",
    ],
)
def test_fuse_convolutions_of_a_sum_fuses_only_what_may_be(then, convolutions, activations, sums):
    fusions, same = fuse(Step(then), torch.randn(2, 8, 7, 9))
    assert same
    assert (fusions.convolutions, fusions.activations, fusions.sums) == (convolutions, activations, sums)


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_fuse_convolutions_leaves_other_padding_alone(mode):
    fusions, same = fuse(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, padding_mode=mode)), torch.randn(2, 8, 7, 9))
    assert (fusions.convolutions, same) == (0, True)


def test_find_activation_of_something_else_finds_none():
    graph = trace_graph(nn.Sequential(nn.Softplus(), nn.PReLU()))
    assert [find_activation(graph, node) for node in graph.graph.nodes] == [None] * 4


def test_works_of_an_operator_that_gives_something_else_says_no(monkeypatch):
    monkeypatch.setitem(fused_convolution._FUNCTIONS, "tanh", torch.sigmoid)
    works.cache_clear()
    assert not works(Activation(attr="tanh"), torch.float32)
    assert works(Activation(attr="relu"), torch.float32)
    works.cache_clear()


def test_works_of_a_name_that_torch_does_not_know_says_no(monkeypatch):
    monkeypatch.setitem(fused_convolution._FUNCTIONS, "nonsense", torch.relu)
    assert not works(Activation(attr="nonsense"), torch.float32)
