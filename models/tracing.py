"""torch.fx tracing that leaves the other threads of the process alone."""

from __future__ import annotations

import threading
from typing import Any

from torch import fx, nn

_tracing = threading.Lock()
"""fx replaces nn.Module's own methods while it traces: two at once would put back each other's."""


class OneThreadTracer(fx.Tracer):
    """A tracer that records the calls of the thread that traces, and lets those of others through as they are."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:  # noqa: ANN401 - as in fx
        """Trace `root`; waits while another thread traces."""
        with _tracing:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - as in fx
        """Record a call, or make it when it is another thread's."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ANN401 - as in fx
        """Record that a parameter is read, or give it as it is to another thread."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)
