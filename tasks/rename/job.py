"""A rename from its parameters to its report: list, plan, write down, carry out; or finish or undo an earlier one."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import RenameParameters
from labelmill.schemas.rename_template import fields_of
from labelmill.tasks.rename.carry_out import Report, carry_out
from labelmill.tasks.rename.journal import Header, Journal
from labelmill.tasks.rename.list_names import Names, list_names, scan_names
from labelmill.tasks.rename.plan import Move, make_moves
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store.files import hash_file, lock_folder, sync_folder

_THREADS = 8
_NUMBERED = re.compile(r"\.rename-(\d{3,})\.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """What a rename did, or with `planned` would do.

    `files` are those that it looked at, `skipped` what it left alone by reason, `appeared` names that came meanwhile.
    """

    root: str
    files: int
    moves: list[Move]
    report: Report
    planned: bool = False
    resumed: bool = False
    journal: Path | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    appeared: list[str] = field(default_factory=list)


def rename_files(parameters: RenameParameters, *, on_done: Callable[[int], None] = lambda files: None) -> Renamed:
    """Rename the files of a folder by a template, finish what a killed run began, or undo a journal.

    Raises BadInput before anything is touched when names would collide, or the journal is of another rename.
    """
    journal = Journal.read(Path(parameters.undo)) if parameters.undo else None
    root = parameters.source or (journal.header.source if journal else "")
    if not os.path.isdir(root):
        raise BadInput(f"source: no such folder: {root}")
    with lock_folder(Path(root), alone=True):
        if journal is not None:
            return _undo(journal, root, dry_run=parameters.dry_run, on_done=on_done)
        pending = _find_pending(parameters, root)
        if pending is not None:
            report = Report() if parameters.dry_run else carry_out(pending, root, on_done=on_done)
            return _finish(pending, root, report, dry_run=parameters.dry_run)
        return _begin(parameters, root, on_done)


def _begin(parameters: RenameParameters, root: str, on_done: Callable[[int], None]) -> Renamed:
    names = list_names(root)
    contents = (
        _read_contents(root, names, parameters.workers) if fields_of(parameters.template) & {"hash", "bytes"} else None
    )
    moves = make_moves(names, parameters.template, first=parameters.first, contents=contents)
    unchanged = Report(before=len(names.files) - len(moves))
    if parameters.dry_run or not moves:
        return Renamed(
            root=root, files=len(names.files), moves=moves, report=unchanged, planned=parameters.dry_run,
            skipped=names.skipped,
        )  # fmt: skip
    journal = Journal.create(_new_journal(parameters, root), _make_header(parameters, root, names, moves), moves)
    report = carry_out(journal, root, fresh=True, on_done=on_done)
    report.before += unchanged.before
    _make_durable(root, moves)
    journal.note("renamed")
    appeared = _find_appeared(scan_names(root), names, moves, set(report.taken))
    return Renamed(
        root=root, files=len(names.files), moves=moves, report=report, journal=journal.path, skipped=names.skipped,
        appeared=appeared,
    )  # fmt: skip


def _find_appeared(now: Names, before: Names, moves: Sequence[Move], taken: set[str]) -> list[str]:
    """Return the names that others made meanwhile; a new file may have got the inode of one that vanished."""
    inodes = {inode for _, inode in before.files}
    paths = {path for path, _ in before.files}.union(move.after for move in moves) - taken
    return sorted(path for path, inode in now.files if inode not in inodes or path not in paths)


def _finish(journal: Journal, root: str, report: Report, *, dry_run: bool) -> Renamed:
    if not dry_run:
        _make_durable(root, journal.moves)
        journal.note("renamed")
    return Renamed(
        root=root, files=len(journal.moves), moves=list(journal.moves), report=report, planned=dry_run, resumed=True,
        journal=journal.path,
    )  # fmt: skip


def _undo(journal: Journal, root: str, *, dry_run: bool, on_done: Callable[[int], None]) -> Renamed:
    if journal.state == "undone":
        raise BadInput(f"undo: {journal.path} was undone already")
    back = [Move(before=move.after, after=move.before, inode=move.inode) for move in journal.moves]
    report = Report()
    if not dry_run:
        if journal.state != "undoing":
            journal.note("undoing")
        report = carry_out(journal, root, undo=True, on_done=on_done)
        _make_durable(root, back)
        journal.note("undone")
    return Renamed(root=root, files=len(back), moves=back, report=report, planned=dry_run, journal=journal.path)


def _read_contents(root: str, names: Names, workers: int) -> dict[str, tuple[str, int]]:
    """Return sha256 and size of each file; those that cannot be read are counted as skipped and lacking."""

    def read(path: str) -> tuple[str, int] | None:
        check_stop()
        try:
            full = os.path.join(root, path)
            return hash_file(Path(full)), os.stat(full).st_size
        except OSError:
            return None

    paths = [path for path, _ in names.files]
    with ThreadPoolExecutor(workers or _THREADS, thread_name_prefix="hash") as threads:
        found = list(threads.map(read, paths))
    contents = {path: content for path, content in zip(paths, found, strict=True) if content is not None}
    if lacking := len(paths) - len(contents):
        names.skipped["unreadable"] += lacking
    return contents


def _make_header(parameters: RenameParameters, root: str, names: Names, moves: list[Move]) -> Header:
    there = {folder for folder in {move.before.rpartition("/")[0] for move in moves} if folder} | names.others
    wanted = {move.after.rpartition("/")[0] for move in moves}
    above = {"/".join(path.split("/")[:depth]) for path in wanted if path for depth in range(1, path.count("/") + 2)}
    return Header(
        id=uuid.uuid4().hex[:12], source=root, template=parameters.template, first=parameters.first,
        time=datetime.now(UTC).isoformat(timespec="seconds"), files=len(moves),
        folders=tuple(sorted(json.dumps(folder) for folder in above - there)), ignores_case=names.ignores_case,
    )  # fmt: skip


def _make_durable(root: str, moves: Sequence[Move]) -> None:
    for folder in {name.rpartition("/")[0] for before, after, _ in moves for name in (before, after)}:
        path = Path(root, folder)
        if path.is_dir():
            sync_folder(path)


def _find_pending(parameters: RenameParameters, root: str) -> Journal | None:
    """Return the journal of a rename that was begun and not ended; raise BadInput when it is another one."""
    path = Path(parameters.journal) if parameters.journal else _last_journal(root)[1]
    if path is None or not path.exists():
        return None
    journal = Journal.read(path)
    if journal.state in ("renamed", "undone"):
        if parameters.journal:
            raise BadInput(f"journal: {path} is of a rename that has ended; choose another file")
        return None
    asked = (root, parameters.template, parameters.first)
    if journal.state == "undoing" or (journal.header.source, journal.header.template, journal.header.first) != asked:
        doing = "an undo" if journal.state == "undoing" else f"a rename to {journal.header.template!r}"
        raise BadInput(
            f"source: {doing} was begun here and not ended: run it again to finish it, or --undo {path} to take it back"
        )
    return journal


def _last_journal(root: str) -> tuple[int, Path | None]:
    """Return the highest number of a journal beside a folder, and that journal; 0 and None when there is none."""
    folder = Path(root)
    last, found = 0, None
    for path in folder.parent.glob("*.rename-*.jsonl"):
        match = _NUMBERED.fullmatch(path.name.removeprefix(folder.name))
        if match and path.name.startswith(folder.name) and int(match[1]) >= last:
            last, found = int(match[1]), path
    return last, found


def _new_journal(parameters: RenameParameters, root: str) -> Path:
    if parameters.journal:
        return Path(parameters.journal)
    return Path(root).with_name(f"{Path(root).name}.rename-{_last_journal(root)[0] + 1:03d}.jsonl")
