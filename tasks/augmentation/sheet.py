"""The contact sheet of a policy: views with their parameters, beside the images that they are of."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from labelmill.schemas.images import Status
from labelmill.schemas.versions import Version, digest_json
from labelmill.schemas.views import parse_steps
from labelmill.tasks.augmentation.apply_view import apply_to_pixels
from labelmill.tasks.augmentation.describe_step import describe_step
from labelmill.tasks.augmentation.job import COLUMNS, AugmentRun, Row
from labelmill.tasks.augmentation.pixel_ops import Pixels, frame_of
from labelmill.tasks.images.read_ingested import read_pixels
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.report.page_style import STYLE

_SIDE_PX = 320
"""Longer side of a picture on the sheet."""

_QUALITY = 85

_STYLE = STYLE + (
    ".sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 18px; }\n"
    ".sheet .card { margin: 0; } .sheet .figures { margin-bottom: 8px; } .sheet figure { width: calc(50% - 7px); }\n"
    ".sheet .photo { height: auto; } .sheet ol { margin: 0; padding-left: 20px; font-size: 13px; }\n"
    ".sheet h2 { font-size: 13px; margin-bottom: 8px; }\n"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A view to show: the record's row, the image's row."""

    record: Row
    image: Row


def build_sheet(run: AugmentRun, version: Version) -> str:
    """Return a self-contained HTML page of some views of a version, drawn by a hash, replayed from their records."""
    tiles = _choose(run, version, run.parameters.sheet_views)
    cards = "".join(_card(run, tile) for tile in tiles)
    title = f"Views of {run.parameters.dataset} by {run.policy.name}"
    facts = {
        "policy": ", ".join(_describe(operation) for operation in run.policy.model_dump(mode="json")["operations"]),
        "digest": run.digest[:16],
        "seed": str(run.parameters.seed),
        "records": f"{version.table} v{version.number}, {version.rows:,} rows",
        "images": f"{run.images.name} v{run.images_version.number}",
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    none = "" if tiles else '<p class="note">no views to show</p>'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f'<section class="panel"><dl class="facts">{listed}</dl>{none}</section>\n'
        f'<section class="sheet">{cards}</section>\n</main>\n</body>\n</html>\n'
    )


def _describe(operation: Mapping[str, object]) -> str:
    rest = ", ".join(f"{name} {value}" for name, value in operation.items() if name != "op")
    return f"{operation['op']} ({rest})" if rest else str(operation["op"])


def _choose(run: AugmentRun, version: Version, count: int) -> list[Tile]:
    """Draw whole views by a hash of seed, image and epoch, and find their images."""
    columns = ["image_id", "split", "epoch", "steps", "status"]
    lots: list[tuple[str, Row]] = []
    for part in version.parts if count else ():
        rows = run.views.read_part(part, columns)
        for row in rows.filter(pc.equal(rows["status"], Status.DONE)).to_pylist():
            lots.append((digest_json([run.parameters.seed, row["image_id"], row["epoch"]]), row))
        lots = sorted(lots, key=lambda lot: lot[0])[:count]
    wanted = pa.array([row["image_id"] for _, row in lots], pa.string())
    images: dict[str, Row] = {}
    for part in run.images_version.parts if lots else ():
        rows = run.images.read_part(part, COLUMNS)
        images |= {row["image_id"]: row for row in rows.filter(pc.is_in(rows["image_id"], wanted)).to_pylist()}
    return [Tile(record=row, image=images[row["image_id"]]) for _, row in lots]


def _card(run: AugmentRun, tile: Tile) -> str:
    steps = parse_steps(tile.record["steps"])
    name = f"{tile.record['image_id']}, epoch {tile.record['epoch']}"
    said = "".join(f"<li>{escape(describe_step(step))}</li>" for step in steps) or "<li>as it is</li>"

    def read(image_id: str) -> Pixels:
        row = run.partners[tile.record["split"]][image_id]
        return read_pixels(row, run.roots[row["split"]], max_pixels=run.parameters.max_pixels)

    try:
        pixels = read_pixels(tile.image, run.roots[tile.image["split"]], max_pixels=run.parameters.max_pixels)
        view = apply_to_pixels(pixels, steps, read_partner=read)
        pictures = _figure(pixels, "image") + _figure(view, "view")
    except RejectedImage as rejected:
        pictures = f'<p class="soft">{escape(str(rejected))}</p>'
    return (
        f'<article class="card"><h2>{escape(name)}</h2><div class="figures">{pictures}</div><ol>{said}</ol></article>'
    )


def _figure(pixels: Pixels, caption: str) -> str:
    width, height = frame_of(pixels)
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "jpeg", quality=_QUALITY)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return (
        f'<figure><img src="{uri}" alt="{escape(caption)}" style="width: 100%; border-radius: 6px">'
        f"<figcaption>{escape(caption)}, {width}×{height}</figcaption></figure>"
    )
