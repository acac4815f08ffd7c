"""What DuckDB sees of an object store: the objects of one store, to be read."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from labelmill.tasks.objects.client import BLOCK_BYTES
from labelmill.tasks.objects.failure import explain_failure
from labelmill.tasks.objects.filesystem import open_filesystem

_ESCAPED = re.compile(r"\[([*?[])\]")
_PATTERN = re.compile(r"[*?[]")


class ObjectReads(AbstractFileSystem):  # type: ignore[misc]
    """fsspec's file system of one store, for reading: DuckDB's own gates stand before it, this one behind them."""

    cachable = False

    def __init__(self, url: str) -> None:
        super().__init__()
        scheme, _, path = url.partition("://")
        self.protocol = scheme
        self._scheme = scheme
        self._root = f"{path}/"

    def open(self, path: str, mode: str = "rb", **_: object) -> Any:  # noqa: ANN401 - a file of s3fs or gcsfs
        """Open an object of the store; raise PermissionError for any other and for writing."""
        if mode != "rb":
            self._refuse(path)
        return self._look("open", path, "rb", block_size=BLOCK_BYTES, cache_type="readahead")

    def info(self, path: str, **_: object) -> Any:  # noqa: ANN401 - as fsspec's
        """Return fsspec's facts of an object of the store."""
        return self._look("info", path)

    def modified(self, path: str) -> Any:  # noqa: ANN401 - as fsspec's
        """Return when an object of the store was written."""
        return self._look("modified", path)

    def ls(self, path: str, detail: bool = True, **_: object) -> Any:  # noqa: ANN401 - as fsspec's
        """Return fsspec's listing below a folder of the store."""
        return self._look("ls", path, detail=detail)

    def glob(self, path: str, **_: object) -> list[str]:
        """Return the objects of the store that a pattern matches, as DuckDB names them."""
        bare = self._bare(path)
        literal = _ESCAPED.sub(r"\1", bare)
        if not _PATTERN.search(_ESCAPED.sub("", bare)):  # a view's: it names one part, with no other listing than that
            found = [literal] if literal.startswith(self._root) else []
        else:
            matches = re.compile(glob_translate(bare)).match
            found = [name for name in self._look("find", self._root) if matches(name)]
        return [f"{self._scheme}://{name}" for name in found]

    def _bare(self, path: str) -> str:
        return path.removeprefix(f"{self._scheme}://")

    def _look(self, method: str, path: str, *given: object, **options: object) -> Any:  # noqa: ANN401 - as fsspec's
        bare = self._bare(path)
        if not f"{bare}/".startswith(self._root) or ".." in bare.split("/"):
            self._refuse(path)
        try:
            return getattr(open_filesystem(self._scheme), method)(bare, *given, **options)
        except Exception as error:
            raise explain_failure(error, f"{self._scheme}://{bare}") from error

    def _refuse(self, path: str) -> NoReturn:
        raise PermissionError(f"{path}: this connection reads the objects of one store and writes none")
