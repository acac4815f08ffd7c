"""Write the demo's folder of images, laid out as ImageNet's, with a note of what each scene holds."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

from PIL import Image

from labelmill.schemas.errors import BadInput
from labelmill.tasks.demo.compose import Scene, draw_scene, draw_single, plan_scenes, plan_singles
from labelmill.tasks.demo.photos import PHOTOS
from labelmill.tasks.store.files import replace_file

NOTE = "contents.json"
"""Names what each scene holds and where; also tells an earlier demo's folder from someone else's."""

BROKEN_ID = "n07920052/espresso_cut_off.jpg"
BROKEN_SHARE = 0.6
"""Of its bytes, what the broken image keeps, as after a download that stopped."""

JPEG_QUALITY = 90


def build_photos(out: Path) -> Path:
    """Write OUT/photos/<wnid>/*.jpg and return OUT/photos.

    Files that are already as they should be are left alone, so that an ingest finds them unchanged. Raises BadInput
    when `out` holds something else than an earlier demo.
    """
    _refuse_foreign(out)
    photos = out / "photos"
    scenes = plan_scenes()
    _write(out / NOTE, json.dumps(describe_contents(scenes), indent=1).encode())
    for single in plan_singles():
        _write(photos / single.image_id, _encode(draw_single(single)))
    for scene in scenes:
        _write(photos / scene.image_id, _encode(draw_scene(scene)))
    whole = (photos / PHOTOS[1].label / f"{PHOTOS[1].name}.jpg").read_bytes()
    _write(photos / BROKEN_ID, whole[: int(len(whole) * BROKEN_SHARE)])
    return photos


def describe_contents(scenes: list[Scene]) -> dict[str, object]:
    """Return what the note says: for each scene its label, and for each half the box and the wnids that are true."""
    return {
        "boxes": "x1 y1 x2 y2 in [0, 1] of the image",
        "scenes": {
            scene.image_id: {
                "label": scene.label,
                "halves": [
                    {"photo": photo.name, "box": scene.half(place), "acceptable": photo.acceptable}
                    for place, photo in enumerate(scene.photos)
                ],
            }
            for scene in scenes
        },
    }


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise BadInput(f"out: expected a folder, found a file: {out}")
    if out.is_dir() and any(out.iterdir()) and not (out / NOTE).is_file():
        raise BadInput(f"out: expected a new or empty folder, or that of an earlier demo: {out}")


def _encode(picture: Image.Image) -> bytes:
    data = BytesIO()
    picture.save(data, "jpeg", quality=JPEG_QUALITY)
    return data.getvalue()


def _write(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        replace_file(path, data)
