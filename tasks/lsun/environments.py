"""Find LSUN's LMDB environments and what their names say: category and split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.images import Reason
from labelmill.schemas.parameters import SPLIT_BY_NAME
from labelmill.tasks.containers.lmdb_values import LmdbState, find_lmdb_state

LSUN_CATEGORIES = (
    "bedroom", "bridge", "church_outdoor", "classroom", "conference_room", "dining_room", "kitchen", "living_room",
    "restaurant", "tower",
)  # fmt: skip
"""In the order of LSUN's own index: a category's place is its label."""

LSUN_CLASSES = ClassList(classes=tuple(ClassName(name=name) for name in LSUN_CATEGORIES), source="LSUN categories")

_DATA_FILE = "data.mdb"
_NAME = re.compile(r"(?:(?P<category>.+)_)?(?P<split>train|val|test)_lmdb")
STRANGE_KEY = (Reason.BAD_NAME, "expected a key of 40 lowercase hexadecimal digits, as LSUN's are")
"""Why a value under another key is rejected; what lies there is not looked at."""

_EXPECTED = "an LMDB environment such as bedroom_train_lmdb, or a folder of several"


@dataclass(frozen=True, kw_only=True, slots=True)
class LsunEnvironment:
    """An environment: its folder, the folder's name, and its category when that is one of LSUN's ten."""

    path: str
    name: str
    split: str
    category: str | None
    state: LmdbState

    @property
    def label(self) -> int | None:
        """Return the category's place in LSUN_CATEGORIES, None for environments without one, such as test_lmdb."""
        return None if self.category is None else LSUN_CATEGORIES.index(self.category)

    def check_unchanged(self) -> None:
        """Raise WorkFailed when the environment has gone or was written since it was found."""
        try:
            same = find_lmdb_state(self.path) == self.state
        except BadInput:
            same = False
        if not same:
            raise WorkFailed(
                f"source: {self.path} disappeared or was changed while it was read; nothing was committed; run again"
            )


def find_environments(source: str, split: str) -> dict[str, list[LsunEnvironment]]:
    """Return the environments by split, both in order: `source` itself, or those directly in it.

    `split` names the split of all of them, or is "auto": then their names tell. Raises BadInput when there is none, one
    is damaged or locked away, or its name does not tell its split.
    """
    found = [_look(path, split) for path in _find_folders(source)]
    splits = sorted({environment.split for environment in found})
    return {name: [environment for environment in found if environment.split == name] for name in splits}


def _find_folders(source: str) -> list[str]:
    try:
        if os.path.isfile(os.path.join(source, _DATA_FILE)):
            return [source]
        names = sorted(os.listdir(source))
    except OSError as error:
        raise BadInput(f"source: {source}: {error.strerror}; expected {_EXPECTED}") from error
    folders = [path for name in names if os.path.isfile(os.path.join(path := os.path.join(source, name), _DATA_FILE))]
    if not folders:
        zips = [name for name in names if name.endswith("_lmdb.zip")]
        hint = f"; {zips[0]} must be unpacked first: labelmill run extract --source … --out …" if zips else ""
        raise BadInput(f"source: {source} holds no {_DATA_FILE}; expected {_EXPECTED}{hint}")
    return folders


def _look(path: str, split: str) -> LsunEnvironment:
    name = os.path.basename(os.path.normpath(path))
    match = _NAME.fullmatch(name)
    if split == SPLIT_BY_NAME:
        if match is None:
            raise BadInput(
                f"source: {path}: its name does not tell its split; expected CATEGORY_train_lmdb, CATEGORY_val_lmdb or "
                "test_lmdb; name the split by --split"
            )
        split = match["split"]
    category = match["category"] if match else None
    try:
        state = find_lmdb_state(path)
    except BadInput as error:
        raise BadInput(f"source: {error}") from error
    return LsunEnvironment(
        path=path, name=name, split=split, category=category if category in LSUN_CATEGORIES else None,
        state=state,
    )  # fmt: skip


def folder_of(environments: Sequence[LsunEnvironment]) -> str:
    """Return the folder that the environments lie in, which their uris are relative to."""
    return os.path.dirname(environments[0].path)


def refuse_keys(environment: LsunEnvironment, keys: int, strange: Sequence[bytes]) -> None:
    """Raise BadInput when an environment has no key at all, or none of LSUN's form: it is somebody else's."""
    if not keys:
        raise BadInput(f"source: {environment.path} holds no values; expected an environment of LSUN")
    if len(strange) == keys:
        raise BadInput(
            f"source: {environment.path}: expected keys of 40 hexadecimal digits, as LSUN's are; none of {keys} is, "
            f"for example {strange[0][:60]!r}: another program's LMDB"
        )


def is_lsun_key(key: bytes) -> bool:
    """Tell whether a key is 40 lowercase hexadecimal digits in ASCII."""
    return len(key) == 40 and not key.translate(None, b"0123456789abcdef")
