"""Train on a small store without Prefect, as the flow does it: 16-pixel images of three colours."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from labelmill.schemas.manifests import MANIFEST_SCHEMA
from labelmill.schemas.parameters import IngestFolderParameters, RelabelParameters, TrainParameters
from labelmill.schemas.versions import Version
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.relabel.job import commit_run, prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.store import open_store
from labelmill.tasks.train.job import Trained, commit_training, train_process
from labelmill.tasks.train.plan import TrainingPlan, plan_training

CLASSES = ("blue", "green", "red")
COLOURS = np.array([[60, 60, 170], [60, 170, 60], [170, 60, 60]])
SIZE_PX = 16


class Killed(Exception):
    """Stands for the end of a process."""


@dataclass(frozen=True)
class Ended:
    plan: TrainingPlan
    trained: Trained
    checkpoints: Version
    curves: Version

    @property
    def weights(self):
        return self.trained.weights

    def steps(self):
        """The rows of the run's curves, by step."""
        table = self.plan.training
        rows = table.read(self.curves, [column.name for column in self.curves.columns]).to_pylist()
        return sorted((row for row in rows if row["run"] == self.plan.run), key=lambda row: row["step"])


def draw_image(label, random, size=SIZE_PX):
    """Return (size, size, 3) uint8, noise around the class's colour."""
    return np.clip(COLOURS[label] + random.integers(-60, 61, (size, size, 3)), 0, 255).astype(np.uint8)


def write_images(root, counts, seed, size=SIZE_PX):
    """Write PNG images into folders by class; `counts` are by class."""
    random = np.random.default_rng(seed)
    for label, count in enumerate(counts):
        (root / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(draw_image(label, random, size)).save(root / CLASSES[label] / f"{number:02}.png")
    return root


def ingest(source, store, **options):
    given = {"source": str(source), "store": str(store), "dataset": "colours", "workers": 1, **options}
    run = prepare_folder(IngestFolderParameters(**given))
    return commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])


def parameters_of(store, **options):
    """Return parameters of a run that takes a part of a second."""
    small = {
        "dataset": "colours", "student": "conv4", "input_size": SIZE_PX, "steps": 8, "batch_size": 12, "rate": 0.1,
        "average": 0.5, "unlabelled_ratio": 1, "threshold": 0.5, "workers": 0, "threads": 1, "device": "cpu",
        "out": str(store.parent / "out"),
    }  # fmt: skip
    return TrainParameters(**{"store": str(store), **small, **options})


def train(store, *, kill_after=None, **options):
    """Train and commit; with `kill_after` end as a killed process would, so many steps after the beginning."""
    plan = plan_training(parameters_of(store, **options))
    done = 0

    def on_steps(fresh, reused):
        nonlocal done
        done += fresh
        if fresh and done == kill_after:
            raise Killed

    trained = train_process(plan, on_steps=on_steps, on_images=lambda images, rejected: None)
    checkpoints, curves = commit_training(plan, trained)
    return Ended(plan, trained, checkpoints, curves)


def relabel(store, weights):
    """Make label maps of two by two cells with a student that was trained here."""
    given = RelabelParameters(
        store=str(store), dataset="colours", teacher="conv4", weights=str(weights), calibration_images=8, workers=1,
        device="cpu", input_size="32x32", top_k=2,
    )  # fmt: skip
    run = prepare_run(given)
    return commit_run(run, [label_shard(run.job, shard) for shard in run.shards])


def write_manifest(store, rows, *, name="colours.manifest", inputs=None):
    """Commit a manifest of (image id, probabilities by class, copies); without copies a row is rejected."""
    images = open_store(store).table("colours.images").version()
    made = []
    for image_id, probabilities, copies in rows:
        order = sorted(probabilities, key=lambda class_id: -probabilities[class_id])
        made.append(
            {
                "image_id": image_id, "split": "train", "class_id": order[0], "class_ids": order,
                "probabilities": [probabilities[class_id] for class_id in order],
                "confidence": probabilities[order[0]], "copies": copies,
                "status": "done" if copies else "rejected", "reason": None if copies else "not_sure",
            }
        )  # fmt: skip
    table = open_store(store).table(name)
    part = table.write_part(pa.Table.from_pylist(made, schema=MANIFEST_SCHEMA), key="manifest")
    lineage = make_lineage("select", parameters_of(store), inputs={"colours.images": images.number})
    metadata = {"kind": "manifest", "classes": images.metadata["classes"]}
    return table.replace([part], schema=MANIFEST_SCHEMA, metadata=metadata, lineage=lineage)


def rows_of(store, name):
    table = open_store(store).table(name)
    version = table.version()
    return table.read(version, [column.name for column in version.columns]).to_pylist()
