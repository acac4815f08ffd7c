"""What training leaves in a store: a row a step, and checkpoints."""

from __future__ import annotations

import pyarrow as pa

FACTS = (
    "loss", "labelled_loss", "labelled_share", "unlabelled_loss", "unlabelled_share", "unlabelled_weight",
    "annealing_threshold", "entropy", "feedback_loss", "feedback", "baseline", "student_loss", "rate",
    "validation_accuracy",
)  # fmt: skip
"""Columns of a step, null where an objective has no such thing.

loss: what was lowered (of MPL's teacher); labelled_share: of the labelled images, those that annealing let count;
unlabelled_share: of the others, those that were sure enough; feedback: how much the student's step lowered its labelled
loss; baseline: the average of feedbacks before it; rate: of the head; validation_accuracy: after the step.
"""

TRAINING_SCHEMA = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),  # digest of all that decides the weights
        pa.field("objective", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),  # counted from 0
        *(pa.field(name, pa.float32()) for name in FACTS),
    ]
)

CHECKPOINTS_SCHEMA = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),  # steps that were done
        # student: the weights to use, as safetensors; state: all that going on exactly needs, as torch.save writes it
        pa.field("kind", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),  # of content, hex
        pa.field("content", pa.large_binary(), nullable=False),
    ]
)
