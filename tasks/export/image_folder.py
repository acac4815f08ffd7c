"""Write a dataset as a tree with a folder for each class, as torchvision's ImageFolder reads it."""

from __future__ import annotations

from labelmill.schemas.exports import LeftOut
from labelmill.tasks.export.image_labels import find_classes
from labelmill.tasks.export.job import ExportRun, Row
from labelmill.tasks.export.place_images import PlaceImages


def export_imagefolder(run: ExportRun, place: PlaceImages) -> None:
    """Put each image with one label at SPLIT/CLASS/NAME; those with none or several are left out and counted.

    A class is its wnid or name. NAME is the image's path without the class's folder where all images lie in folders
    so named; slashes left in it become %2F, and % becomes %25, so that no two names fall together.
    """
    for split in run.splits:
        is_tree = _is_tree(run, split)
        for batch in run.done_images_of(split):
            wanted = []
            for row in batch:
                classes = find_classes(row)
                if len(classes) == 1:
                    wanted.append((row, f"{split}/{_name(run, row, classes[0], is_tree=is_tree)}"))
                else:
                    run.exported.left_out[LeftOut.SEVERAL_LABELS if classes else LeftOut.NO_LABEL] += 1
            place(wanted)


def _is_tree(run: ExportRun, split: str) -> bool:
    """Tell whether every image that is labelled lies below a folder of its class's name."""
    known = run.images.read(run.images_version, ["image_id", "split", "label"]).to_pylist()
    labelled = [row for row in known if row["split"] == split and row["label"] is not None]
    return all(row["image_id"].startswith(f"{run.class_keys[row['label']]}/") for row in labelled)


def _name(run: ExportRun, row: Row, number: int, *, is_tree: bool) -> str:
    key = run.class_keys[number]
    name = row["image_id"].removeprefix(f"{key}/") if is_tree else row["image_id"]
    return f"{encode_name(key)}/{encode_name(name)}"


def encode_name(text: str) -> str:
    """Return a text as one part of a path: %2F for a slash, %25 for %, and no name that means another folder."""
    name = text.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return {"": "%", ".": "%2E", "..": "%2E%2E"}.get(name, name)
