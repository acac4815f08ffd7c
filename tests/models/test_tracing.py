"""Tracing in one thread while others run and trace modules."""

from concurrent.futures import ThreadPoolExecutor

import timm
import torch
from torch import fx, nn

from labelmill.models.tracing import OneThreadTracer


def test_trace_while_other_threads_run_and_trace_changes_nothing_of_theirs():
    model = timm.create_model("test_efficientnet", num_classes=3).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
    own_call = nn.Module.__call__

    def trace(_):
        with torch.no_grad():
            return fx.GraphModule(model, OneThreadTracer().trace(model))(images)

    def run(_):
        with torch.no_grad():
            return torch.stack([model(images) for _ in range(5)])

    with ThreadPoolExecutor(4) as threads:
        results = [*threads.map(trace, range(8)), *threads.map(run, range(24))]
        traced = [threads.submit(trace, n) for n in range(8)]
        ran = [threads.submit(run, n) for n in range(24)]
        results += [future.result() for future in traced + ran]
    assert all(torch.allclose(r, expected, atol=1e-5) for r in results)
    assert nn.Module.__call__ is own_call
