"""Labelmill: image collections in, versioned label stores out."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelmill.models.crops import Crop, CropWithBox
    from labelmill.models.cutmix import cutmix
    from labelmill.models.mixup import mixup
    from labelmill.tasks.augmentation.recorded_views import RecordedViews
    from labelmill.tasks.augmented_images import AugmentedImages
    from labelmill.tasks.read_label_maps import LabelMaps
    from labelmill.tasks.store import Store, open_store
    from labelmill.tasks.with_rows import WithRows

__all__ = [
    "AugmentedImages",
    "Crop",
    "CropWithBox",
    "LabelMaps",
    "RecordedViews",
    "Store",
    "WithRows",
    "cutmix",
    "mixup",
    "open_store",
]

_PUBLIC_NAMES = {
    "AugmentedImages": "tasks.augmented_images",
    "Crop": "models.crops",
    "CropWithBox": "models.crops",
    "LabelMaps": "tasks.read_label_maps",
    "RecordedViews": "tasks.augmentation.recorded_views",
    "Store": "tasks.store",
    "WithRows": "tasks.with_rows",
    "cutmix": "models.cutmix",
    "mixup": "models.mixup",
    "open_store": "tasks.store",
}

__version__ = version("labelmill")

if not (Path(__file__).parent / "schemas").is_dir():
    raise ImportError(
        "labelmill's folders are links (src/labelmill/schemas -> ../../schemas) and this copy has lost them: "
        "clone with `git -c core.symlinks=true clone`, or install the wheel"
    )


def __getattr__(name: str) -> Any:  # noqa: ANN401 - torch and duckdb are imported when they are needed
    if module := _PUBLIC_NAMES.get(name):
        return getattr(import_module(f"labelmill.{module}"), name)
    raise AttributeError(f"module 'labelmill' has no attribute {name!r}")
