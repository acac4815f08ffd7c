"""What a store needs of the place that holds its files, whether a folder or an object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """A file of a place, by its path in it; `changed` is in seconds since the epoch by the place's clock."""

    path: str
    size: int
    changed: float


class Sweep(Protocol):
    """A place while nothing that refers to its files can be written, save what `claimed` names."""

    @property
    def now(self) -> float:
        """Seconds since the epoch by the place's clock."""

    @property
    def claimed(self) -> frozenset[str]:
        """Files that a writer is about to refer to."""

    def leftovers(self) -> list[FileFacts]:
        """Return unfinished files and marks of writers, most of which were killed."""

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files in this order; that one is gone already is fine."""


class Files(Protocol):
    """The files of a store or of one of its tables; paths are relative to it, with '/' between folders.

    What is written is whole and durable when a call returns, and no reader sees a part of it.
    """

    @property
    def root(self) -> Path | str:
        """The folder or URL."""

    def below(self, path: str) -> Files:
        """Return the files below a folder of this one."""

    def at(self, path: str) -> Path | str:
        """Return where a file lies, as people and DuckDB name it."""

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders directly in a folder; none when it does not exist."""

    def names(self, folder: str) -> list[str]:
        """Return the names directly in a folder; none when it does not exist."""

    def files_in(self, folder: str) -> list[FileFacts]:
        """Return the files directly in a folder, sorted; none when it does not exist."""

    def info(self, path: str) -> FileFacts | None:
        """Return a file's facts, None when there is no such file."""

    def lacking(self, paths: Iterable[str]) -> list[str]:
        """Return those of the paths where there is no file."""

    def read(self, path: str) -> bytes:
        """Return a file's content; raise FileNotFoundError when there is none."""

    def read_all(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the files that are there, each with its content, in order."""

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading pieces of it."""

    def hash(self, path: str) -> str:
        """Return the hex sha256 of a file's content."""

    def create(self, path: str, data: bytes) -> None:
        """Write a new file; raise FileExistsError when there is one, even if it appeared meanwhile."""

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, in the place of an old one if there is one."""

    def touch(self, path: str) -> None:
        """Make an empty file, or make it young again."""

    def remove(self, path: str) -> None:
        """Remove a file; that it is gone already is fine."""

    def draft(self, folder: str, suffix: str) -> AbstractContextManager[Path]:
        """Yield the path of a file of this machine to write what `put` shall bring into `folder`."""

    def put(self, draft: Path, path: str) -> None:
        """Put a draft in its place, as its folder's draft; no gc judges by an older file of that name."""

    def claim(self, paths: Sequence[str]) -> AbstractContextManager[None]:
        """Keep gc from files that the caller looks for now and refers to before the end of the block."""

    def refresh(self, path: str, *, size: int, sha256: str) -> bool:
        """Tell whether a claimed file is there and whole, and make it young again where that can be done."""

    def sweep(self) -> AbstractContextManager[Sweep]:
        """Keep writers from referring to files until the end of the block."""
