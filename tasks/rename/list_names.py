"""List what a folder holds for a rename: names and inodes, without a look at each file."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace

from labelmill.schemas.errors import BadInput

_NUMBERS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Files to rename as (path, inode) in natural order; `others` are paths that are taken and stay.

    `skipped` counts what is left alone by reason. `ignores_case` says that the file system takes a.jpg for A.jpg.
    """

    files: list[tuple[str, int]]
    others: set[str]
    skipped: Counter[str] = field(default_factory=Counter)
    ignores_case: bool = False


def sort_naturally(files: list[tuple[str, int]]) -> None:
    """Sort files so that `img2` comes before `img10`, folder by folder, without regard to case."""
    files.sort()  # decides between names of equal keys
    nested = any("/" in path for path, _ in files)
    files.sort(key=lambda file: natural_key(file[0]) if nested else _key_of_name(file[0]))


def natural_key(path: str) -> list[object]:
    """Return what sorts a path by its folders and name, digits as numbers."""
    return [_key_of_name(name) for name in path.split("/")]


def _key_of_name(name: str) -> list[object]:
    texts = _NUMBERS.split(name.casefold())
    pieces: list[object] = list(texts)
    pieces[1::2] = map(int, texts[1::2])
    return pieces


def list_names(root: str) -> Names:
    """Return the files below a folder in natural order; see `scan_names`."""
    names = scan_names(root)
    sort_naturally(names.files)
    return replace(names, ignores_case=_ignores_case(root, names.files))


def scan_names(root: str) -> Names:
    """Return the files below a folder in any order.

    Hidden ones, links to folders and what is no file are counted and left alone, and so are names of one file (hard
    links): nothing could tell them apart after a kill. Raises BadInput when the folder cannot be read.
    """
    names = Names(files=[], others=set())
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                _take(list(entries), f"{folder}/" if folder else "", names, waiting)
        except OSError as error:
            if not folder:
                raise BadInput(f"source: {root}: {error.strerror}; expected a folder") from error
            names.skipped["unreadable_folder"] += 1
    _leave_hard_links(names)
    return names


def _take(entries: list[os.DirEntry[str]], prefix: str, names: Names, waiting: list[str]) -> None:
    reliable: bool | None = None
    for entry in entries:
        path = prefix + entry.name
        hidden = entry.name.startswith(".")
        if not hidden and (entry.is_file(follow_symlinks=False) or (entry.is_symlink() and not entry.is_dir())):
            if reliable is None:  # on some overlays the folder's own list has other inodes
                reliable = entry.inode() == entry.stat(follow_symlinks=False).st_ino
            names.files.append((path, entry.inode() if reliable else entry.stat(follow_symlinks=False).st_ino))
            continue
        names.others.add(path)
        if entry.is_dir():
            if hidden or entry.is_symlink():
                names.skipped["hidden_folder" if hidden else "link_to_folder"] += 1
            else:
                waiting.append(path)
        else:
            names.skipped["hidden" if hidden else "not_a_file"] += 1


def _leave_hard_links(names: Names) -> None:
    if len({inode for _, inode in names.files}) == len(names.files):
        return
    counts = Counter(inode for _, inode in names.files)
    linked = [file for file in names.files if counts[file[1]] > 1]
    names.others.update(path for path, _ in linked)
    names.skipped["hard_link"] += len(linked)
    names.files[:] = [file for file in names.files if counts[file[1]] == 1]


def _ignores_case(root: str, files: list[tuple[str, int]]) -> bool:
    for path, inode in files:
        folder, name = os.path.split(path)
        if name.swapcase() != name:
            try:
                return os.lstat(os.path.join(root, folder, name.swapcase())).st_ino == inode
            except OSError:
                return False
    return False
