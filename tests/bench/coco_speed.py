"""Measure the ingest of a COCO file of train2017's size against pycocotools' loading of it, in one run.

    python tests/bench/coco_speed.py [--images 118287] [--boxes 860001]

The file is built: polygons of about the length of train2017's, RLE for every hundredth box, ids with gaps, and no
images, so that the figures are those of the annotations. Each side runs in a process of its own, in turns.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CATEGORIES = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
SHAPES = 4000
"""Different polygons; more of them would only make the building slower."""


def build(path, images, boxes):
    random = np.random.default_rng(0)
    shapes = [draw(random) for _ in range(SHAPES)]
    image_ids = np.sort(random.choice(600_000, images, replace=False))
    with path.open("w") as out:
        out.write('{"info": {"description": "built", "year": 2017}, "licenses": [{"url": "", "id": 1, "name": ""}], ')
        out.write('"images": [')
        for place, number in enumerate(image_ids.tolist()):
            out.write((", " if place else "") + describe_image(number))
        out.write('], "annotations": [')
        for place in range(boxes):
            area, box, polygon = shapes[place * 7919 % SHAPES]
            crowd = place % 100 == 99
            shape = '{"counts": [272, 2, 4, 4, 4, 4, 2, 9, 1, 2], "size": [480, 640]}' if crowd else polygon
            out.write(
                f'{", " if place else ""}{{"segmentation": {shape}, "area": {area}, "iscrowd": {int(crowd)}, '
                f'"image_id": {image_ids[place * 104_729 % images]}, "bbox": {box}, '
                f'"category_id": {CATEGORIES[place % 80]}, "id": {place * 3 + 1}}}'
            )
        categories = [{"supercategory": "thing", "id": number, "name": f"thing {number}"} for number in CATEGORIES]
        out.write(f'], "categories": {json.dumps(categories)}}}')


def draw(random):
    points = random.integers(8, 45)
    corner, size = random.uniform(0, 250, 2), random.uniform(10, 220, 2)
    turn = np.sort(random.uniform(0, 2 * np.pi, points))
    xy = np.round(corner + size * (1 + np.stack([np.cos(turn), np.sin(turn)], 1)) / 2, 2)
    low, span = xy.min(0), np.round(np.ptp(xy, 0), 2)
    return round(float(span.prod()) * 0.6, 5), [*low.tolist(), *span.tolist()], json.dumps([xy.ravel().tolist()])


def describe_image(number):
    name = f"{number:012d}.jpg"
    return json.dumps(
        {
            "license": 1, "file_name": name, "coco_url": f"http://images.cocodataset.org/train2017/{name}",
            "height": 480, "width": 640, "date_captured": "2013-11-14 16:28:13",
            "flickr_url": f"http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z{number}.jpg", "id": number,
        }
    )  # fmt: skip


def ingest(annotations, folder):
    from labelmill.schemas.parameters import IngestCocoParameters
    from labelmill.tasks.boxes.coco import prepare_coco
    from labelmill.tasks.boxes.job import write_boxes
    from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk

    images = folder / "images"
    images.mkdir(exist_ok=True)
    (images / "README").write_text("no images")
    store = tempfile.mkdtemp(dir=folder)
    start = time.monotonic()
    run = prepare_coco(
        IngestCocoParameters(annotations=str(annotations), images=str(images), store=store, dataset="coco")
    )
    read = time.monotonic()
    version = commit_ingest(run.images, [ingest_chunk(run.images, chunk) for chunk in run.images.chunks])
    listed = time.monotonic()
    written = write_boxes(run, version)
    end = time.monotonic()
    return {
        "s": end - start, "read": read - start, "images": listed - read, "boxes": end - listed,
        "rows": written.counts["boxes"], "bytes": sum(part.bytes for part in written.version.parts),
    }  # fmt: skip


def load(annotations, folder):
    from pycocotools.coco import COCO

    start = time.monotonic()
    coco = COCO(str(annotations))
    return {"s": time.monotonic() - start, "rows": len(coco.anns)}


STEPS = ("read", "images", "boxes")
SIDES = {"ingest": ingest, "pycocotools": load}


def measure(side, annotations, folder):
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, "--file", annotations, "--folder", folder],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--boxes", type=int, default=860_001)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        before = time.process_time()
        figures = SIDES[given.side](given.file, given.folder)
        figures["cpu_s"] = time.process_time() - before
        print(json.dumps({**figures, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}))
        return
    with tempfile.TemporaryDirectory() as name:
        annotations = Path(name, "instances.json")
        build(annotations, given.images, given.boxes)
        print(f"{annotations.stat().st_size / 1e6:.0f} MB, {given.images:,} images, {given.boxes:,} boxes")
        best = {}
        for _ in range(given.rounds):
            for side in SIDES:
                figures = measure(side, annotations, name)
                assert figures["rows"] == given.boxes
                steps = ", ".join(
                    f"{step} {figures[step]:.1f} s" for step in ("read", "images", "boxes") if step in figures
                )
                print(
                    f"{side:12} {figures['s']:6.1f} s  {figures['cpu_s']:6.1f} s CPU  "
                    f"peak {figures['peak_mb']:6.0f} MB  {steps}",
                    flush=True,
                )
                best[side] = min(best.get(side, figures["s"]), figures["s"])
        print(f"ingest / pycocotools: {best['ingest'] / best['pycocotools']:.2f} of the time")


if __name__ == "__main__":
    main()
