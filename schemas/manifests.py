"""The manifest: what a trainer is to learn from, chosen among stored pseudo labels."""

from __future__ import annotations

import pyarrow as pa

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field(
            "class_id", pa.int32()
        ),  # the label, or the likeliest class of a soft one: an id of metadata["classes"]
        pa.field("class_ids", pa.list_(pa.field("element", pa.int32()))),  # of the label, likeliest first
        pa.field("probabilities", pa.list_(pa.field("element", pa.float32()))),  # theirs, summing to one
        pa.field("confidence", pa.float32()),  # the teacher's, not sharpened
        pa.field("copies", pa.int32(), nullable=False),  # how often an epoch has the image: 0 when it is not chosen
        pa.field("label", pa.int32()),  # the image's own, as an id of the same list; for measuring, never for training
        pa.field("status", pa.string(), nullable=False),  # done: chosen; rejected: left out, with the reason
        pa.field("reason", pa.string()),
    ]
)
