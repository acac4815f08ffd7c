import pytest
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import nn

from labelmill.models.folding import drop_identities, fold_batch_norms, fold_paddings, record_shapes, trace_graph


@torch.no_grad()
def with_statistics(norm):
    norm.running_mean.normal_(0, 0.5)
    norm.running_var.uniform_(0.5, 2)
    if norm.affine:
        norm.weight.uniform_(-1.5, 1.5)
        norm.bias.normal_(0, 0.5)
    return norm


def trace(*modules):
    model = nn.Sequential(*modules).eval().requires_grad_(False)
    return model, trace_graph(model)


def agree(graph, model, images):
    graph.recompile()
    return torch.allclose(graph(images), model(images), atol=1e-5)


class Twice(nn.Module):
    """One convolution before two different norms."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = with_statistics(nn.BatchNorm2d(3)), with_statistics(nn.BatchNorm2d(3))

    def forward(self, images):
        return self.second(self.conv(self.first(self.conv(images))))


class SeenByTwo(nn.Module):
    """A convolution whose result is wanted without the norm, too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), with_statistics(nn.BatchNorm2d(3))

    def forward(self, images):
        features = self.conv(images)
        return self.norm(features) + features


@pytest.mark.parametrize(
    ("modules", "count"),
    [
        ([nn.Conv2d(3, 6, 3, bias=False), with_statistics(nn.BatchNorm2d(6))], 1),
        ([nn.Conv2d(3, 6, 3, groups=3, dilation=2), with_statistics(nn.BatchNorm2d(6, affine=False))], 1),
        ([Conv2dSame(3, 6, 3, stride=2), with_statistics(BatchNormAct2d(6, act_layer=nn.SiLU))], 1),
        ([with_statistics(nn.BatchNorm2d(3)), nn.Conv2d(3, 6, 3)], 0),
        ([nn.Conv2d(3, 6, 3), nn.ReLU(), with_statistics(nn.BatchNorm2d(6))], 0),
        ([Twice()], 2),
        ([SeenByTwo()], 0),
        ([nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)], 0),
        ([nn.utils.spectral_norm(nn.Conv2d(3, 6, 3)), with_statistics(nn.BatchNorm2d(6))], 0),
    ],
    ids=["plain", "grouped", "norm-act", "norm first", "relu between", "shared", "seen by two", "no stats", "hooked"],
)
def test_fold_batch_norms_folds_only_what_may_be_and_keeps_the_result(modules, count):
    model, graph = trace(*modules)
    assert fold_batch_norms(graph) == count
    assert agree(graph, model, torch.randn(2, 3, 17, 20))


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (17, 19)], ids=str)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 3, 1), (3, 2, 2), (2, 1, 1)])
def test_fold_paddings_of_same_padding_keeps_the_result(size, kernel, stride, dilation):
    model, graph = trace(Conv2dSame(4, 4, kernel, stride=stride, dilation=dilation, groups=4))
    images = torch.randn(2, 4, *size)
    assert fold_paddings(graph, record_shapes(graph, images)) == 1
    called = [graph.get_submodule(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    assert [type(module) for module in called] == [nn.Conv2d]
    assert agree(graph, model, images)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_fold_paddings_of_torchs_words_keeps_the_result(padding):
    model, graph = trace(nn.Conv2d(3, 4, 4, padding=padding, dilation=1))
    images = torch.randn(2, 3, 9, 12)
    assert fold_paddings(graph, record_shapes(graph, images)) == 1
    assert agree(graph, model, images)


def test_drop_identities_takes_out_dropout_and_nothing_else():
    model, graph = trace(nn.Identity(), nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.ReLU(), nn.Dropout2d(0.5))
    drop_identities(graph)
    assert [node.op for node in graph.graph.nodes].count("call_module") == 2
    assert agree(graph, model, torch.randn(2, 3, 9, 12))
