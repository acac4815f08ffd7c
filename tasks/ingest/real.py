"""Read ReaL's labels: for each of ImageNet's validation images all classes that people saw in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from labelmill.schemas.errors import BadInput
from labelmill.tasks.ingest.devkit import Devkit, is_validation_name
from labelmill.tasks.ingest.labels import class_key
from labelmill.tasks.ingest.list_files import ListedFile


def read_real(path: str, files: Sequence[ListedFile], devkit: Devkit | None) -> dict[str, list[str]]:
    """Return the keys of all classes of each validation image by its path; an empty list says that none was seen.

    The file is real.json of google-research/reassessed-imagenet: a list of class indices, in the order of the sorted
    wnids, for ILSVRC2012_val_00000001 and on. Raises BadInput when it does not fit the devkit.
    """
    if devkit is None:
        raise BadInput("real: its numbers count in the devkit's classes; give --devkit too")
    lists = _load(path)
    if len(lists) != len(devkit.labels):
        raise BadInput(
            f"real: {path}: expected a list for each of the devkit's {len(devkit.labels)} images, got {len(lists)}"
        )
    keys = [class_key(name) for name in devkit.classes.classes]
    found: dict[str, list[str]] = {}
    for file in files:
        name = file.path.rpartition("/")[2]
        number = int(name[len("ILSVRC2012_val_") :][:8]) if is_validation_name(name) else 0
        if not 1 <= number <= len(lists):
            continue
        ids = lists[number - 1]
        if strange := [i for i in ids if not 0 <= i < len(keys)]:
            raise BadInput(f"real: {path}: image {number}: expected class indices below {len(keys)}, got {strange[0]}")
        found[file.path] = [keys[i] for i in ids]
    if not found:
        raise BadInput("real: no file of the source is named as ImageNet's validation images are; leave the option out")
    return found


def _load(path: str) -> list[list[int]]:
    try:
        lists = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise BadInput(f"real: {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"real: {path}: expected JSON, got {error}") from error
    good = isinstance(lists, list) and all(
        isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in ids) for ids in lists
    )
    if not good:
        raise BadInput(f"real: {path}: expected a list of lists of class indices, as real.json is")
    return [list(ids) for ids in lists]
