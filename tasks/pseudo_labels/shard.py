"""A shard's images predicted, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from labelmill.schemas.images import Status
from labelmill.schemas.pseudo_labels import PSEUDO_LABELS_SCHEMA
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.pseudo_labels.predict import Predictor
from labelmill.tasks.pseudo_labels.prediction import Predicted, Prediction
from labelmill.tasks.relabel.shards import list_images


def predict_rows(
    predictor: Predictor,
    rows: pa.Table,
    roots: dict[str, str],
    *,
    on_batch: Callable[[int, int], None] = lambda images, rejected: None,
) -> list[Predicted | None]:
    """Predict the images of some rows of an images table; None for an image that was rejected at ingest."""
    good = [place for place, status in enumerate(rows["status"].to_pylist()) if status == Status.DONE]
    on_batch(len(rows) - len(good), len(rows) - len(good))
    images = list_images(rows.take(pa.array(good, pa.int64())), roots)
    results: list[Predicted | None] = [None] * len(rows)
    for place, predicted in zip(good, predictor.predict(images, on_batch=on_batch), strict=True):
        results[place] = predicted
    return results


def build_rows(rows: pa.Table, results: Sequence[Predicted | None], labels: Sequence[int | None]) -> pa.Table:
    """Build a row for each image; None in `results` is one that was rejected at ingest and keeps its reason."""
    made = [
        {**_describe(result), "image_id": row["image_id"], "split": row["split"], "label": label}
        if result is not None
        else {**row, "label": label}
        for row, result, label in zip(
            rows.select(["image_id", "split", "status", "reason", "detail"]).to_pylist(), results, labels, strict=True
        )
    ]
    return pa.Table.from_pylist(made, schema=PSEUDO_LABELS_SCHEMA)


def _describe(result: Predicted) -> dict[str, Any]:
    if isinstance(result, RejectedImage):
        return {"status": Status.REJECTED.value, "reason": result.reason.value, "detail": result.detail}
    return {"pseudo_class": result.class_ids[0], **_columns(result), "status": Status.DONE.value}


def _columns(result: Prediction) -> dict[str, Any]:
    names = ("class_ids", "probabilities", "confidence", "margin", "entropy")
    return {name: getattr(result, name) for name in names}
