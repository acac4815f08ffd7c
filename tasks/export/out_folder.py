"""The folder of an export: claimed for it, filled with whole files, and never over something else."""

from __future__ import annotations

import fcntl
import filecmp
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from labelmill.schemas.errors import BadInput
from labelmill.tasks.store.files import TEMPORARY_PREFIX, create_file, make_folder, sync_file, temporary_beside

MARK = ".labelmill-export.json"
"""The file that says which export a folder belongs to."""

_UNFINISHED = re.compile(re.escape(TEMPORARY_PREFIX) + r"\d+-[0-9a-f]{32}(\..*)?", re.DOTALL)


def claim_folder(out: Path, identity: dict[str, Any]) -> None:
    """Make a folder an export's; one that is its already is where a stopped export goes on.

    Raises BadInput when it holds anything else.
    """
    mark = out / MARK
    text = json.dumps(identity, sort_keys=True, indent=1).encode()
    try:
        make_folder(out)
        if not mark.exists():
            if any(out.iterdir()):
                raise BadInput(f"out: {out} holds other files; choose a folder that is empty or does not exist")
            create_file(mark, text)
        elif mark.read_bytes() != text:
            raise BadInput(
                f"out: {out} belongs to an export of other versions or parameters ({mark} says which); choose another"
            )
    except OSError as error:
        raise BadInput(f"out: {out}: {error.strerror or error}") from error


@contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Keep other exports out of a claimed folder, and remove the unfinished files of one that was killed.

    Raises BadInput when another process holds it.
    """
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"out: {out}: another export is at work there; wait for its end") from error
        for folder, _, names in os.walk(out):
            for name in names:
                if _UNFINISHED.fullmatch(name):
                    os.unlink(os.path.join(folder, name))
        yield
    finally:
        os.close(handle)


@contextmanager
def write_whole(path: Path, *, durable: bool = True) -> Iterator[IO[str]]:
    """Yield a stream for a text file that appears at the end, whole; an equal one that is there stays.

    Raises BadInput when there is one with another content. One that is not `durable` may be lost in a power cut:
    for many small files, waiting for the disk takes longer than all the rest.
    """
    with temporary_beside(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        if durable:
            sync_file(temporary)
        put_in_place(temporary, path)


def put_in_place(temporary: Path, path: Path) -> bool:
    """Give a finished file its name; return False when an equal one has it. Raises BadInput for another one."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not path.is_file() or not filecmp.cmp(temporary, path, shallow=False):
            raise BadInput(f"out: {path} is there with another content; nothing is written over it") from None
        return False
    return True
