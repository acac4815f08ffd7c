"""Folders to rename, and journals about them."""

import os
from pathlib import Path

from labelmill.tasks.rename.journal import Header, Journal
from labelmill.tasks.rename.plan import Move


def files_of(root):
    """Each file's content by its path; contents tell the files apart."""
    return {p.relative_to(root).as_posix(): p.read_text() for p in Path(root).rglob("*") if p.is_file()}


def make(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def journal_of(folder, root, mapping):
    moves = [Move(old, new, os.stat(root / old).st_ino) for old, new in mapping.items()]
    header = Header(
        id="abc", source=str(root), template="{index}", first=0, time="", files=len(moves), folders=(),
        ignores_case=False,
    )  # fmt: skip
    return Journal.create(folder / "journal.jsonl", header, moves)
