"""Read ImageNet's devkit: the classes of meta.mat and the ground truth of the validation images."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from labelmill.schemas.classes import WNID_PATTERN, ClassList, ClassName
from labelmill.schemas.errors import BadInput

META_FILE = "meta.mat"
GROUND_TRUTH_FILE = "ILSVRC2012_validation_ground_truth.txt"

_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.[A-Za-z]{3,4}")
_FIELDS = ("ILSVRC2012_ID", "WNID", "words", "num_children")
_MAT_FAILURES = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    MatReadError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devkit:
    """The classes sorted by wnid, and the class index in that list of each validation image, the first first."""

    classes: ClassList
    labels: tuple[int, ...]

    def find_label(self, file_name: str) -> int | None:
        """Return the class index of `ILSVRC2012_val_00000001.JPEG` and the like, None for other names."""
        match = _VALIDATION_NAME.fullmatch(file_name)
        if match is None or not 1 <= int(match[1]) <= len(self.labels):
            return None
        return self.labels[int(match[1]) - 1]


def is_validation_name(file_name: str) -> bool:
    """Tell whether a file is named as ImageNet's validation images are."""
    return _VALIDATION_NAME.fullmatch(file_name) is not None


def read_devkit(folder: str | Path) -> Devkit:
    """Read meta.mat and the ground truth in `folder` or in its data/, as the official devkit has them.

    An ILSVRC2012_ID counts in the order of meta.mat from 1: it becomes the wnid, and that its index among the sorted
    wnids. Raises BadInput that names the file and what was expected in it.
    """
    meta = _find(Path(folder), META_FILE)
    truth = _find(Path(folder), GROUND_TRUTH_FILE)
    words, wnid_of_id = _read_meta(meta)
    wnids = sorted(words)
    index_of_wnid = {wnid: index for index, wnid in enumerate(wnids)}
    ids = _read_ids(truth, highest=len(wnid_of_id))
    classes = ClassList(classes=tuple(ClassName(name=words[w], wnid=w) for w in wnids), source="ImageNet devkit")
    return Devkit(classes=classes, labels=tuple(index_of_wnid[wnid_of_id[number]] for number in ids))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / "data" / name):
        if path.is_file():
            return path
    raise BadInput(f"devkit: no {name} in {folder} nor in its data/; expected the folder of ILSVRC2012_devkit_t12")


def _read_meta(path: Path) -> tuple[dict[str, str], dict[int, str]]:
    """Return words by wnid and wnid by ILSVRC2012_ID, of the synsets that have no children."""
    try:
        synsets = np.atleast_1d(scipy.io.loadmat(path, squeeze_me=True)["synsets"])
    except _MAT_FAILURES as error:
        raise BadInput(f"devkit: {path}: expected a MATLAB file with `synsets`, got {error!r}") from error
    missing = [name for name in _FIELDS if name not in (synsets.dtype.names or ())]
    if missing:
        raise BadInput(f"devkit: {path}: expected synsets with fields {', '.join(_FIELDS)}; no {', '.join(missing)}")
    words: dict[str, str] = {}
    wnid_of_id: dict[int, str] = {}
    for synset in synsets:
        number, wnid, name, children = (synset[field] for field in _FIELDS)
        if _whole_number(path, children):
            continue
        # An empty MATLAB text is read as an empty array.
        if WNID_PATTERN.fullmatch(str(wnid)) is None or not (isinstance(name, str) and name):
            raise BadInput(f"devkit: {path}: expected a wnid such as n01440764 and words, got {wnid!r}, {name!r}")
        words[str(wnid)] = str(name)
        wnid_of_id[_whole_number(path, number)] = str(wnid)
    if not words or sorted(wnid_of_id) != list(range(1, len(words) + 1)):
        raise BadInput(
            f"devkit: {path}: expected distinct wnids with ILSVRC2012_IDs 1 to n (n is 1000 in the official file), "
            f"got {len(words)} wnids and {len(wnid_of_id)} ids"
        )
    return words, wnid_of_id


def _whole_number(path: Path, value: Any) -> int:  # noqa: ANN401 - whatever MATLAB stored there
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise BadInput(f"devkit: {path}: expected a whole number, got {value!r}") from error


def _read_ids(path: Path, *, highest: int) -> list[int]:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").rstrip().splitlines()
    except OSError as error:
        raise BadInput(f"devkit: {path}: {error.strerror}") from error
    if not lines:
        raise BadInput(f"devkit: {path} is empty; expected one ILSVRC2012_ID a line")
    ids: list[int] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= highest:
            raise BadInput(
                f"devkit: {path}: line {number}: expected an ILSVRC2012_ID 1 to {highest}, got {text[:40]!r}"
            )
        ids.append(int(text))
    return ids
