"""Anchors from their parameters to their version, in steps that a flow calls in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from labelmill.models.anchor_clustering import cluster_anchors, describe_anchors
from labelmill.models.box_sizes import Sizes, best_ious, count_different, match_by_ratio
from labelmill.schemas.anchors import ANCHORS_SCHEMA, RATIO_LIMIT, AnchorsMetadata
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import (
    AnchorsParameters,
    parse_input_size,
    parse_sizes,
    parse_strides,
    parse_sweep,
)
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.anchors.preflight import find_classes
from labelmill.tasks.anchors.read_boxes import InputBoxes, read_boxes
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.store import Store, Table, open_store
from labelmill.tasks.store.receipts import Receipt

_METHOD = "anchors 1"
"""Another one makes other anchors of the same boxes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorSet:
    """A set of anchors to make: k clustered ones, or those `given` in pixels of the input."""

    k: int
    given: tuple[tuple[float, float], ...] | None
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorsRun:
    """A prepared run: the boxes, and the sets to make of them."""

    parameters: AnchorsParameters
    store: Store
    table: Table
    inputs: dict[str, int]
    version: Version
    boxes: InputBoxes
    sets: tuple[AnchorSet, ...]
    run: str


def prepare_anchors(parameters: AnchorsParameters) -> AnchorsRun:
    """Read the boxes and list the sets; raise BadInput when there are too few sizes, NotInStore without boxes."""
    store = open_store(parameters.store)
    boxes = read_boxes(store, parameters)
    counts = sorted({parameters.k, *(parse_sweep(parameters.sweep) if parameters.sweep else ())})
    if (different := count_different(boxes.sizes)) < counts[-1]:
        field = "k" if different < parameters.k else "sweep"
        raise BadInput(f"{field}: {counts[-1]} anchors need at least as many different box sizes, got {different}")
    contents = [part.sha256 for made in boxes.versions for part in made.parts]
    facts = [_METHOD, boxes.versions[0].number, contents, _choices(parameters)]  # the rows name the version
    sets = [AnchorSet(k=k, given=None, key=digest_json([facts, k, parameters.seed])) for k in counts]
    if parameters.compare is not None:
        given = parse_sizes(parameters.compare)
        sets.append(AnchorSet(k=len(given), given=given, key=digest_json([facts, [list(size) for size in given]])))
    table = store.table(f"{parameters.dataset}.{parameters.table}")
    run = digest_json([made.key for made in sets])
    table.receipts.open_run(run)
    inputs = {made.table: made.number for made in boxes.versions}
    return AnchorsRun(
        parameters=parameters, store=store, table=table, inputs=inputs, version=boxes.versions[0], boxes=boxes,
        sets=tuple(sets), run=run,
    )  # fmt: skip


def _choices(parameters: AnchorsParameters) -> dict[str, object]:
    """Return the parameters that decide the rows of every set."""
    names = {"split", "classes", "crowds", "min_side_px", "max_side_px", "resize", "strides"}
    return {
        **parameters.model_dump(mode="json", include=names),
        "input_size": list(parse_input_size(parameters.input_size)),
    }


def make_set(run: AnchorsRun, wanted: AnchorSet) -> Receipt:
    """Cluster or measure a set of anchors, write its part and its receipt."""
    boxes = run.boxes.sizes
    made = (
        cluster_anchors(boxes, wanted.k, seed=run.parameters.seed)
        if wanted.given is None
        else describe_anchors(boxes, np.array(wanted.given))
    )
    rows = _build_rows(run, made.sizes, "clustered" if wanted.given is None else "given")
    receipt = Receipt(
        key=wanted.key, run=run.run, part=run.table.write_part(rows, key=wanted.key), counts={"anchors": wanted.k}
    )
    run.table.receipts.write(receipt)
    return receipt


def _build_rows(run: AnchorsRun, anchors: Sizes, source: str) -> pa.Table:
    boxes, k = run.boxes.sizes, len(anchors)
    best, which = best_ious(boxes, anchors)
    counts = np.bincount(which, minlength=k)
    recall, fitness = match_by_ratio(boxes, anchors, limit=RATIO_LIMIT)
    height, width = parse_input_size(run.parameters.input_size)
    columns = {
        "k": [k] * k,
        "source": [source] * k,
        "anchor": list(range(k)),
        "w": anchors[:, 0],
        "h": anchors[:, 1],
        "w_relative": anchors[:, 0] / width,
        "h_relative": anchors[:, 1] / height,
        "stride_px": split_over(run.parameters.strides, k),
        "boxes": counts,
        "cluster_iou": pa.array(np.bincount(which, best, k) / np.maximum(counts, 1), mask=counts == 0),
        "mean_iou": [float(best.mean())] * k,
        "best_possible_recall": [recall] * k,
        "fitness": [fitness] * k,
        "resize": [run.parameters.resize] * k,
        "input_width": [width] * k,
        "input_height": [height] * k,
        "boxes_version": [run.version.number] * k,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in ANCHORS_SCHEMA], schema=ANCHORS_SCHEMA)


def split_over(strides: str | None, k: int) -> list[int | None]:
    """Return the stride of each of k anchors sorted by area, the smallest at the finest; None where there is none."""
    levels = parse_strides(strides) if strides else ()
    if not levels or k % len(levels):
        return [None] * k
    return [stride for stride in levels for _ in range(k // len(levels))]


def commit_anchors(run: AnchorsRun, receipts: Sequence[Receipt]) -> Version:
    """Make the sets a version; the latest stays when it holds them already."""
    parameters = run.parameters
    metadata = AnchorsMetadata(
        k=parameters.k, input_size=parse_input_size(parameters.input_size), resize=parameters.resize,
        split=parameters.split, classes=find_classes(parameters, run.version), boxes=len(run.boxes),
        rejected=run.boxes.rejected,
    ).model_dump(mode="json")  # fmt: skip
    version = run.table.replace(
        [receipt.part for receipt in receipts], schema=ANCHORS_SCHEMA, metadata=metadata,
        lineage=make_lineage("anchors", parameters, inputs=run.inputs),
    )  # fmt: skip
    run.table.receipts.close_run(run.run)
    return version
