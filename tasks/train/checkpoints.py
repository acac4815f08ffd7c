"""Checkpoints and curves of a run in its store: what a killed run goes on from, and what its version holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pyarrow as pa
import torch

from labelmill.schemas.training import CHECKPOINTS_SCHEMA, FACTS, TRAINING_SCHEMA
from labelmill.schemas.versions import Part, digest_json
from labelmill.tasks.store import Table
from labelmill.tasks.store.parquet import Layout
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.train.plan import TrainingPlan

_WEIGHTS_LAYOUT = Layout(level=1, plain=("content",))
"""Floating point hardly shrinks."""


class RunRecords:
    """The parts that a run has written: a part of curves with every checkpoint, and the checkpoints themselves."""

    def __init__(self, plan: TrainingPlan) -> None:
        self._plan = plan
        self._curves: list[str] = []
        self._last_state: str | None = None
        for table in (plan.checkpoints, plan.training):
            table.receipts.open_run(plan.run)

    def find_state(self, steps: Sequence[int]) -> tuple[int, dict[str, Any]] | None:
        """Return the latest of the given steps that has a whole checkpoint, and its state; None when none has."""
        plan = self._plan
        for step in sorted(steps, reverse=True):
            key = self._state_key(step)
            receipt = plan.checkpoints.receipts.find(key, run=plan.run)
            if receipt is None:
                continue
            content = plan.checkpoints.read_whole_part(receipt.part, ["content"])["content"][0].as_py()
            state: dict[str, Any] = torch.load(BytesIO(content), weights_only=True, map_location="cpu")
            curves = state.pop("curves")
            if all(plan.training.receipts.find(curve, run=plan.run) for curve in curves):
                self._curves, self._last_state = list(curves), key
                return step, state
        return None

    def write_curves(self, facts: Sequence[dict[str, Any]], *, start: int) -> None:
        """Write what the steps from `start` on left, a row each."""
        plan, given = self._plan, self._plan.parameters
        rows = [
            {"run": plan.run, "objective": given.objective, "seed": given.seed, "step": start + number}
            | {name: row.get(name) for name in FACTS}
            for number, row in enumerate(facts)
        ]
        key = digest_json(["curves", plan.run, start, start + len(rows)])
        _write(plan.training, pa.Table.from_pylist(rows, schema=TRAINING_SCHEMA), key=key, run=plan.run)
        self._curves.append(key)

    def write_state(self, state: dict[str, Any], *, step: int) -> None:
        """Write the checkpoint of a step, and remove the one before it."""
        stream = BytesIO()
        torch.save(state | {"curves": self._curves}, stream)
        before, self._last_state = self._last_state, self._state_key(step)
        self._write_checkpoint("state", stream.getvalue(), step=step, key=self._last_state)
        if before is not None and before != self._last_state:
            self._plan.checkpoints.receipts.drop(before)

    def write_student(self, weights: bytes, *, step: int) -> Part:
        """Write the student's weights, a safetensors file; return the part."""
        key = digest_json(["student", self._plan.run])
        return self._write_checkpoint("student", weights, step=step, key=key)

    def parts(self) -> tuple[list[Part], list[Part]]:
        """Return the parts of the curves in order, and that of the last checkpoint."""
        plan = self._plan
        curves = [plan.training.receipts.find(key, run=plan.run) for key in self._curves]
        state = plan.checkpoints.receipts.find(str(self._last_state), run=plan.run)
        return [found.part for found in curves if found], [state.part] if state else []

    def _write_checkpoint(self, kind: str, content: bytes, *, step: int, key: str) -> Part:
        row = {
            "run": self._plan.run, "step": step, "kind": kind, "sha256": hashlib.sha256(content).hexdigest(),
            "content": content,
        }  # fmt: skip
        rows = pa.Table.from_pylist([row], schema=CHECKPOINTS_SCHEMA)
        return _write(self._plan.checkpoints, rows, key=key, run=self._plan.run, layout=_WEIGHTS_LAYOUT)

    def _state_key(self, step: int) -> str:
        return digest_json(["state", self._plan.run, step])


def _write(table: Table, rows: pa.Table, *, key: str, run: str, layout: Layout | None = None) -> Part:
    part = table.write_part(rows, key=key, layout=layout)
    table.receipts.write(Receipt(key=key, run=run, part=part, counts={"done": rows.num_rows, "rejected": 0}))
    return part
