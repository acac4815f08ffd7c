"""The page of a training run: what came of it, and its curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.training import FACTS
from labelmill.schemas.versions import Version
from labelmill.tasks.report.panels import build_panel, build_plain_page, build_plots_panel
from labelmill.tasks.statistics.plots import BOTTOM, HEIGHT, TOP, WIDTH, draw_frame
from labelmill.tasks.store import Table

POINTS = 160
"""Of a curve: each is the mean over as many steps as it takes."""

Values = npt.NDArray[np.float64]


def build_training_page(training: Table, curves: Version, checkpoints: Version) -> str:
    """Return a self-contained HTML page over the run of a version of a checkpoints table."""
    meta, run = checkpoints.metadata, checkpoints.metadata["run"]
    parts = [training.read_part(part) for part in curves.parts]
    rows = pa.concat_tables([rows.filter(pc.equal(rows["run"], run)) for rows in parts])
    steps = rows["step"].to_numpy().astype(np.float64)
    plots = [
        draw_steps(name.replace("_", " "), steps[known], values[known])
        for name in FACTS
        if (known := ~np.isnan(values := _values(rows, name))).any()
    ]
    title = f"{meta['student']['name']} on {checkpoints.lineage.parameters['dataset']}, {meta['objective']}"
    measured = meta["measured_on"]
    facts = {
        "accuracy": f"{meta['accuracy']:.4f} on {measured['images']:,} images of {measured['table']} "
        f"v{measured['version']}",
        "kept": f"after step {meta['kept_step']:,}",
        "learnt from": f"{meta['labelled']:,} labelled and {meta['unlabelled']:,} further images",
        "starts from": f"weights {meta['student']['weights']}",
        "made from": ", ".join(f"{name} v{number}" for name, number in checkpoints.lineage.inputs.items()),
        "checkpoints": f"{checkpoints.table} v{checkpoints.number}, run {run[:16]}",
    }
    return build_plain_page(
        title, [build_panel("what came of it", ["", ""], list(facts.items())), build_plots_panel(plots)]
    )


def _values(rows: pa.Table, name: str) -> Values:
    return np.asarray(rows[name].cast("float64").to_numpy(zero_copy_only=False), np.float64)


def draw_steps(title: str, steps: Values, values: Values) -> str:
    """Return a line of values (N,) over steps (N,), each of its points the mean of neighbouring ones."""
    points = _thin(steps, values)
    low, high = float(steps[0]), float(steps[-1])
    floor, top = min(value for _, value in points), max(value for _, value in points)
    span, room = (top - floor) or 1.0, HEIGHT - BOTTOM - TOP - 12
    at = [
        (6 + (WIDTH - 12) * ((step - low) / (high - low) if high > low else 0.5),
         TOP + 12 + room * (1 - (value - floor) / span))
        for step, value in points
    ]  # fmt: skip
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    drawing = f'<polyline fill="none" stroke="#3b74d6" stroke-width="1.3" points="{line}"/>'
    return draw_frame(title, drawing, f"step {low:,.0f}, least {floor:.4g}", f"step {high:,.0f}", f"{top:.4g}")


def _thin(steps: Values, values: Values) -> Sequence[tuple[float, float]]:
    pieces = min(POINTS, len(steps))
    return [
        (float(some.mean()), float(means.mean()))
        for some, means in zip(np.array_split(steps, pieces), np.array_split(values, pieces), strict=True)
    ]
