"""What the tests of selections share: small tables of pseudo labels."""

import pyarrow as pa
import pytest

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.pseudo_labels import PSEUDO_LABELS_SCHEMA
from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store

NAMES = ("ant", "bee", "cow", "dog")

LINEAGE = Lineage(
    code="0", flow="test", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host="h"
)


def classes_of(names):
    return ClassList(classes=tuple(ClassName(name=name) for name in names), source="test")


def predicted(image_id, pseudo_class, confidence, *, label=None, split="pool", others=(), reason=None):
    """A row of pseudo labels; `others` are further (class, probability) of the top k."""
    kept = [] if pseudo_class is None else [(pseudo_class, confidence), *others]
    return {
        "image_id": image_id, "split": split, "pseudo_class": pseudo_class,
        "confidence": None if pseudo_class is None else confidence, "margin": None, "entropy": None,
        "class_ids": [number for number, _ in kept], "probabilities": [p for _, p in kept], "label": label,
        "status": "rejected" if reason else "done", "reason": reason, "detail": None,
    }  # fmt: skip


def write_labels(rows, root, *, table="pets.pseudo_labels", part_rows=3, names=NAMES):
    """Write a version of a table of pseudo labels in parts of `part_rows`; return its store's folder."""
    store = open_store(root, create=True)
    found = store.table(table)
    pieces = [rows[start : start + part_rows] for start in range(0, len(rows), part_rows)]
    parts = [
        found.write_part(pa.Table.from_pylist(piece, schema=PSEUDO_LABELS_SCHEMA), key=f"{number:020d}")
        for number, piece in enumerate(pieces)
    ]
    metadata = {"kind": "pseudo_labels", "classes": classes_of(names).model_dump(mode="json")}
    found.replace(parts, schema=PSEUDO_LABELS_SCHEMA, metadata=metadata, lineage=LINEAGE)
    return store.root


@pytest.fixture
def make_labels(tmp_path):
    """Write pseudo labels into this test's store."""
    return lambda rows, **options: write_labels(rows, tmp_path / "store", **options)
