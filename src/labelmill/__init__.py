"""Labelmill: image collections in, versioned label stores out."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelmill.tasks.read_label_maps import LabelMaps
    from labelmill.tasks.store import Store, open_store

__all__ = ["LabelMaps", "Store", "open_store"]

__version__ = version("labelmill")

if not (Path(__file__).parent / "schemas").is_dir():
    raise ImportError(
        "labelmill's folders are links (src/labelmill/schemas -> ../../schemas) and this copy has lost them: "
        "clone with `git -c core.symlinks=true clone`, or install the wheel"
    )


def __getattr__(name: str) -> Any:  # noqa: ANN401 - torch and duckdb are imported when they are needed
    if name == "LabelMaps":
        from labelmill.tasks.read_label_maps import LabelMaps

        return LabelMaps
    if name in {"Store", "open_store"}:
        from labelmill.tasks import store

        return getattr(store, name)
    raise AttributeError(f"module 'labelmill' has no attribute {name!r}")
