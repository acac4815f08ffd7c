"""The journal of a rename: every name before and after, durable before the first file is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii  # the part of json.dumps that names need
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks.rename.plan import Move
from labelmill.tasks.store.files import create_file, make_folder

State = Literal["renaming", "renamed", "undoing", "undone"]


class Header(BaseModel):
    """The first line of a journal.

    `folders` are those that the rename makes, each as a JSON string, which also holds names that are not UTF-8; an undo
    removes them when they are empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["labelmill rename 1"] = "labelmill rename 1"
    id: str
    source: str
    template: str
    first: int
    time: str
    files: int
    folders: tuple[str, ...]
    ignores_case: bool


class Journal:
    """A journal on disk: a header, a line for each file, then a line for each change of state."""

    def __init__(self, path: Path, header: Header, moves: Sequence[Move], state: State) -> None:
        self.path, self.header, self.moves, self.state = path, header, moves, state

    @classmethod
    def create(cls, path: Path, header: Header, moves: Sequence[Move]) -> Journal:
        """Write a journal durably; raise BadInput when the file exists, OSError when it cannot be written."""
        make_folder(path.parent)
        try:
            create_file(path, "".join(_lines(header, moves)).encode("ascii"))
        except FileExistsError as error:
            raise BadInput(f"journal: {path} exists; choose another file") from error
        return cls(path, header, moves, "renaming")

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read a journal; raise BadInput when it is none, or damaged."""
        try:
            lines = path.read_bytes().split(b"\n")
            header = Header.model_validate_json(lines[0])
            moves = [_move(line) for line in lines[1 : header.files + 1]]
            if len(moves) != header.files:
                raise ValueError(f"expected {header.files} files, got {len(moves)}")
        except OSError as error:
            raise BadInput(f"journal: {path}: {error.strerror}") from error
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            said = str(error).splitlines()[0]
            raise BadInput(f"journal: {path}: not a journal of a rename, or damaged: {said}") from error
        return cls(path, header, moves, _last_state(lines[header.files + 1 :]))

    def note(self, state: State) -> None:
        """Add a change of state durably."""
        try:
            with self.path.open("r+b") as stream:
                stream.seek(-1, os.SEEK_END)
                torn = stream.read(1) != b"\n"  # the last line of a run that a power cut ended
                stream.write((b"\n" if torn else b"") + json.dumps({"state": state}).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise WorkFailed(
                f"journal: {self.path}: {error.strerror}; the files are where they are: mend this, and run again"
            ) from error
        self.state = state


def _lines(header: Header, moves: Sequence[Move]) -> Iterator[str]:
    yield json.dumps(header.model_dump(mode="json")) + "\n"
    encode = encode_basestring_ascii
    for before, after, inode in moves:  # json.dumps takes three times as long
        yield f'{{"from": {encode(before)}, "to": {encode(after)}, "inode": {inode}}}\n'


def _move(line: bytes) -> Move:
    found = json.loads(line)
    if not (isinstance(found["from"], str) and isinstance(found["to"], str) and isinstance(found["inode"], int)):
        raise ValueError(f"expected from, to and inode, got {line[:80]!r}")
    return Move(before=found["from"], after=found["to"], inode=found["inode"])


def _last_state(lines: Sequence[bytes]) -> State:
    state: State = "renaming"
    for line in lines:
        try:
            said = json.loads(line)["state"]
        except (ValueError, KeyError, TypeError):
            continue
        if said in ("renaming", "renamed", "undoing", "undone"):
            state = said
    return state
