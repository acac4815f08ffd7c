"""ReLabel against single labels, on scenes composed of several real photos whose content is known.

    LABELMILL_SAMPLE_DATA=… python tests/bench/composed_scenes.py [--seeds 5] [--steps 400] [--keep FOLDER]

A scene is two by two photos of CIFAR-10 (64 x 64 pixels) and is labelled as annotators label ImageNet: by one of the
four, drawn evenly. 3,000 scenes of training photos, 1,000 of test photos. The teacher, conv4, is trained by the flow
on 12,000 single photos of the training split and relabels the training scenes at 64 pixels (4 x 4 cells). Students,
conv4 at 32 pixels, see random crops (a twentieth to a half of a scene) for the same steps from the same start: with
the scenes' single labels, or with labels pooled from the maps.

Measured on the held-out scenes: the share of whole scenes whose likeliest class is among their contents, and of single
photos, cut out of these scenes, that are named rightly.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from labelmill.schemas.parameters import (
    IngestFolderParameters,
    IngestTableParameters,
    RelabelParameters,
    TrainParameters,
)
from labelmill.tasks.ingest.job import IngestRun, commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.ingest.table_file import prepare_table
from labelmill.tasks.relabel.job import commit_run, prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.train.job import commit_training, write_files
from labelmill.tasks.train.page import build_training_page
from labelmill.tasks.train.plan import plan_training
from labelmill.tasks.train.processes import train_student

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SCENES = {"train": 3000, "test": 1000}
PHOTOS_A_CLASS = 1200
STUDENT = {"student": "conv4", "batch_size": 64}
CROPS = """
name: crops-of-scenes
operations:
  - {op: random_resized_crop, size: [32, 32], scale: [0.05, 0.5]}
  - flip
"""


def read_photos(split: str) -> tuple[list[bytes], list[int]]:
    """Return CIFAR-10's photos of a split, as JPEGs, and their classes."""
    rows = pq.read_table(Path(os.environ["LABELMILL_SAMPLE_DATA"]) / "cifar10/cifar10_jpeg.parquet")
    content = next(name for name in rows.column_names if "binary" in str(rows.schema.field(name).type))
    chosen = [place for place, own in enumerate(rows["split"].to_pylist()) if own == split]
    labels = rows["label"].to_pylist()
    return [rows[content][place].as_py() for place in chosen], [labels[place] for place in chosen]


def write_photo(path: Path, pixels: Image.Image) -> None:
    """Write an image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels.save(path)


def write_scenes(folder: Path, split: str, count: int) -> None:
    """Write scenes, a table of their labels, and for the test split their single photos by class."""
    photos, labels = read_photos(split)
    random = np.random.default_rng(0 if split == "train" else 1)
    lines = ["path,label"] if split == "train" else ["path,labels"]
    for scene in range(count):
        chosen = random.choice(len(photos), 4, replace=False)
        whole = Image.new("RGB", (64, 64))
        for quarter, place in enumerate(chosen):
            photo = Image.open(io.BytesIO(photos[place])).convert("RGB")
            whole.paste(photo, (32 * (quarter % 2), 32 * (quarter // 2)))
            if split == "test":
                write_photo(folder / "quarters" / NAMES[labels[place]] / f"{scene:04d}-{quarter}.png", photo)
        write_photo(folder / split / f"{scene:04d}.png", whole)
        contents = [NAMES[labels[place]] for place in chosen]
        told = str(random.choice(contents)) if split == "train" else "|".join(sorted(set(contents)))
        lines.append(f"{scene:04d}.png,{told}")
    (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_singles(folder: Path) -> None:
    """Write single training photos for the teacher."""
    counts: dict[int, int] = defaultdict(int)
    for place, (data, label) in enumerate(zip(*read_photos("train"), strict=True)):
        if counts[label] < PHOTOS_A_CLASS:
            counts[label] += 1
            write_photo(folder / "singles" / NAMES[label] / f"{place:05d}.png", Image.open(io.BytesIO(data)))


def commit(run: IngestRun) -> None:
    """Read all chunks of an ingest and commit it."""
    commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])


def make_stores(folder: Path, store: Path) -> None:
    """Write all images and ingest them: scenes, their test photos one by one, and the teacher's photos."""
    for split, count in SCENES.items():
        write_scenes(folder, split, count)
        given: dict[str, Any] = {"label_separator": "|", "label_column": "labels"} if split == "test" else {}
        commit(
            prepare_table(
                IngestTableParameters(
                    store=str(store),
                    dataset="scenes" if split == "train" else "heldout",
                    split=split,
                    table=str(folder / f"{split}.csv"),
                    images=str(folder / split),
                    **given,
                )
            ).images
        )
    write_singles(folder)
    for dataset in ("singles", "quarters"):
        given = {"store": str(store), "dataset": dataset, "split": "train", "source": str(folder / dataset)}
        commit(prepare_folder(IngestFolderParameters(**given)))


def train(store: Path, dataset: str, out: Path, **given: Any) -> float:
    """Train and commit as the flow does, unless it is done; return the accuracy."""
    parameters = TrainParameters(store=str(store), dataset=dataset, out=str(out), **(STUDENT | given))
    plan = plan_training(parameters)
    trained = train_student(plan, on_steps=lambda done, reused: None)
    checkpoints, curves = commit_training(plan, trained)
    write_files(plan, trained, build_training_page(plan.training, curves, checkpoints))
    return trained.accuracy.value


def relabel(store: Path, weights: Path) -> None:
    """Store a label map for each training scene."""
    run = prepare_run(
        RelabelParameters(store=str(store), dataset="scenes", teacher="conv4", weights=str(weights), input_size=64)
    )
    try:
        commit_run(run, [label_shard(run.job, shard) for shard in run.mine])
    finally:
        run.job.engine.close()


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--keep", type=Path, help="folder for the store and the students; default: a temporary one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.keep or Path(temporary)
        store, began = root / "store", time.monotonic()
        if not store.exists():
            make_stores(root / "images", store)
        views = root / "crops.yaml"
        views.write_text(CROPS)
        taught = train(store, "singles", root / "teacher", steps=asked.teacher_steps, eval_dataset="quarters")
        print(f"teacher: {100 * taught:.2f} % of the held-out single photos", file=sys.stderr)
        relabel(store, root / "teacher" / "student.safetensors")
        print(f"ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for seed in range(asked.seeds):
            for objective in ("supervised", "relabel"):
                for measured in ("heldout", "quarters"):
                    accuracy = train(
                        store,
                        "scenes",
                        root / f"{objective}-{seed}",
                        objective=objective,
                        steps=asked.steps,
                        seed=seed,
                        weak_policy=str(views),
                        eval_dataset=measured,
                    )
                    found[objective, measured].append(accuracy)
                both = ", ".join(f"{100 * found[objective, name][-1]:.2f} %" for name in ("heldout", "quarters"))
                print(
                    f"seed {seed} {objective:10} {both}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
                )
    print(f"\n{asked.seeds} seeds, {asked.steps} steps; accuracy in %, mean and spread over the seeds")
    for measured, what in (("heldout", "whole held-out scenes"), ("quarters", "their single photos")):
        gains = [
            after - before
            for before, after in zip(found["supervised", measured], found["relabel", measured], strict=True)
        ]
        for objective in ("supervised", "relabel"):
            values = found[objective, measured]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"  {what}: {objective:10} {100 * statistics.mean(values):6.2f} ± {100 * spread:.2f}")
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        print(f"  {what}: gain {100 * statistics.mean(gains):+.2f}, standard error {100 * error:.2f}")


if __name__ == "__main__":
    main()
