"""Carry a journal out, forwards or back, from wherever an earlier run stopped."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from labelmill.tasks.rename.journal import Journal
from labelmill.tasks.rename.no_replace import RenameCall, open_rename
from labelmill.tasks.rename.plan import Move, Step, order_steps
from labelmill.tasks.stop import check_stop

TEMPORARY_PREFIX = ".labelmill-rename-"

_REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.EBUSY})
"""No permission, or a mount between the two names: told for the file, the others go on."""

STEPS_AT_ONCE = 2000
"""Steps between two looks at the stop flag."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of the files of a journal; the lists hold the names that could not be served.

    `vanished` are gone, `taken` are new names that others have, `refused` are files that the system would not rename,
    `stranded` those among them that are left under a hidden name.
    """

    moved: int = 0
    before: int = 0
    vanished: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stranded: list[str] = field(default_factory=list)


def carry_out(
    journal: Journal, root: str, *, undo: bool = False, fresh: bool = False, on_done: Callable[[int], None]
) -> Report:
    """Bring every file of a journal to its name after the rename, or with `undo` to the one before.

    Where each file is now is found by its inode, so that it does not matter where an earlier run was killed; with
    `fresh` all files are where they were listed. Files that vanished and names that others took are told in the
    report, and nothing is overwritten.
    """
    report = Report()
    with _open_folder(root) as folder:
        waiting = _find_waiting(journal, folder, undo=undo, fresh=fresh, report=report)
        _make_folders(folder, {target.rpartition("/")[0] for _, _, target in waiting})
        rename = open_rename(folder)
        rest = _rename_free(waiting, folder, rename, report, on_done, ignores_case=journal.header.ignores_case)
        steps = order_steps(
            rest, detour=lambda file: detour_name(journal, file), ignores_case=journal.header.ignores_case
        )
        _take_steps(steps, rest, folder, rename, report, on_done)
        if undo:
            for text in sorted(journal.header.folders, reverse=True):
                with contextlib.suppress(OSError):  # others have put something in it
                    os.rmdir(json.loads(text), dir_fd=folder)
    return report


def detour_name(journal: Journal, file: int) -> str:
    """Return the hidden name that a file of a cycle has for a moment, in its own folder."""
    folder = posixpath.dirname(journal.moves[file].before)
    return posixpath.join(folder, f"{TEMPORARY_PREFIX}{journal.header.id}-{file}")


@contextmanager
def _open_folder(root: str) -> Iterator[int]:
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _find_waiting(
    journal: Journal, folder: int, *, undo: bool, fresh: bool, report: Report
) -> list[tuple[int, str, str]]:
    """Return (file, where it is, where it shall be) of the files that are not there yet."""
    if fresh:
        return [(number, move.before, move.after) for number, move in enumerate(journal.moves)]
    waiting = []
    for number, move in enumerate(journal.moves):
        target = move.before if undo else move.after
        place = _locate(folder, move, detour_name(journal, number), target, journal.header.ignores_case)
        if place is None:
            report.vanished.append(move.after if undo else move.before)
        elif place == target:
            report.before += 1
        else:
            waiting.append((number, place, target))
    return waiting


def _locate(folder: int, move: Move, detour: str, target: str, ignores_case: bool) -> str | None:
    for place in (target, move.before, move.after, detour):
        try:
            same = os.stat(place, dir_fd=folder, follow_symlinks=False).st_ino == move.inode
        except OSError:
            continue
        if same and (not ignores_case or _is_spelt(folder, place)):
            return place
    return None


def _is_spelt(folder: int, place: str) -> bool:
    """Tell whether an entry has exactly this name, which a file system that ignores case says in its lists alone."""
    handle = os.open(posixpath.dirname(place) or ".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        return posixpath.basename(place) in os.listdir(handle)
    finally:
        os.close(handle)


def _make_folders(folder: int, wanted: set[str]) -> None:
    for path in sorted(wanted - {""}):
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            with contextlib.suppress(OSError):  # what it stands in the way of is told for each file
                os.mkdir("/".join(parts[:depth]), dir_fd=folder)


def _rename_free(
    waiting: Sequence[tuple[int, str, str]],
    folder: int,
    rename: RenameCall,
    report: Report,
    on_done: Callable[[int], None],
    *,
    ignores_case: bool,
) -> list[tuple[int, str, str]]:
    """Rename the files whose new name no other has, in a loop as short as a bare one; return the others."""
    if ignores_case:
        return list(waiting)
    sources = {source for _, source, _ in waiting}
    rest = []
    for start in range(0, len(waiting), STEPS_AT_ONCE):
        check_stop()
        before = report.moved
        for move in waiting[start : start + STEPS_AT_ONCE]:
            _, source, target = move
            if target in sources or (len(source) == len(target) and source.casefold() == target.casefold()):
                rest.append(move)
                continue
            try:
                rename(source.encode("utf-8", "surrogateescape"), target.encode("utf-8", "surrogateescape"))
            except OSError as error:
                _tell(error, folder, (source, target, source), rename, report)
            else:
                report.moved += 1
        on_done(report.moved - before)
    return rest


def _take_steps(
    steps: Iterator[Step],
    waiting: Sequence[tuple[int, str, str]],
    folder: int,
    rename: RenameCall,
    report: Report,
    on_done: Callable[[int], None],
) -> None:
    origins = {file: source for file, source, _ in waiting}
    lost: set[int] = set()
    told = report.moved
    for count, (file, source, target, last) in enumerate(steps):
        if count % STEPS_AT_ONCE == 0:
            check_stop()
            on_done(report.moved - told)
            told = report.moved
        if lost and file in lost:
            continue
        try:
            rename(source.encode("utf-8", "surrogateescape"), target.encode("utf-8", "surrogateescape"))
        except OSError as error:
            lost.add(file)
            _tell(error, folder, (source, target, origins[file]), rename, report)
        else:
            report.moved += last
    on_done(report.moved - told)


def _is_there(folder: int, path: str) -> bool:
    try:
        os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _tell(error: OSError, folder: int, names: tuple[str, str, str], rename: RenameCall, report: Report) -> None:
    """Count a file that could not get its name, by reason, and leave it where it was; from a detour it goes back.

    `names` are where it is, the name that it could not get, and where it was at the beginning. Other errors, such as a
    full disk, end the work.
    """
    place, target, origin = names
    if isinstance(error, FileExistsError | NotADirectoryError):  # a file where a folder shall be takes the name too
        report.taken.append(target)
    elif isinstance(error, FileNotFoundError) and not _is_there(folder, place):
        report.vanished.append(origin)
        return
    elif isinstance(error, FileNotFoundError) or error.errno in _REFUSALS:
        report.refused.append(origin)
    else:
        raise error
    if place != origin:
        with contextlib.suppress(OSError):
            rename(os.fsencode(place), os.fsencode(origin))
            place = origin
    if posixpath.basename(place).startswith(TEMPORARY_PREFIX):
        report.stranded.append(place)
