"""A store: a folder or a place in a bucket, with datasets that hold tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.locations import check_location, is_object_url
from labelmill.schemas.names import split_table_name
from labelmill.schemas.versions import Version
from labelmill.tasks.store.folder_files import FolderFiles
from labelmill.tasks.store.place import Files
from labelmill.tasks.store.table import Table

if TYPE_CHECKING:
    from labelmill.tasks.store.connection import StoreConnection


class Store:
    """Tables with versions below a folder or a URL. Paths inside are relative: a copy elsewhere is a store too."""

    def __init__(self, files: Files) -> None:
        self.files = files

    @property
    def root(self) -> Path | str:
        """The folder, or the URL."""
        return self.files.root

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def tables(self, *, unlisted: bool = False) -> list[str]:
        """Return the names `dataset.table` of all tables that have a version, sorted.

        With `unlisted` also those without: all versions deleted, or none committed yet.
        """
        datasets = self.files.folders()
        found = [f"{dataset}.{table}" for dataset in datasets for table in self.files.folders(dataset)]
        tables = [self.table(name) for name in sorted(found) if self._is_table(name)]
        return [t.name for t in tables if ("parts" in t.files.folders() if unlisted else t.numbers())]

    def table(self, name: str) -> Table:
        """Return the table `dataset.table`, which need not exist yet; raise BadInput for a name of another form."""
        return Table(self.files, name)

    def versions(self, table: str) -> list[Version]:
        """Return the versions of a table, oldest first, without deleted ones; raise NotInStore when it has none."""
        found = self.table(table).versions()
        if not found:
            known = ", ".join(self.tables()) or "none"
            raise NotInStore(f"{table}: no such table in {self.root}; tables: {known}")
        return found

    def connect(self, *, read_only: bool = True) -> StoreConnection:
        """Return a DuckDB connection with a schema for each dataset and a view for each table and version.

        Read-only: statements that write are refused, and no file outside the store can be read. With
        `read_only=False` it is an ordinary connection that may also read and write the caller's own files.
        """
        from labelmill.tasks.store.connection import open_connection

        return open_connection(self, read_only=read_only)

    @staticmethod
    def _is_table(name: str) -> bool:
        try:
            split_table_name(name)
        except BadInput:
            return False
        return True


def open_store(uri: str | Path, *, create: bool = False) -> Store:
    """Open the store in a folder (a path or a file:// URL) or in a bucket (s3://bucket/prefix, gs://bucket/prefix).

    Raises NotInStore when nothing is there (with `create` it is made), BadInput for a URL of a back end that does not
    promise to create a version only if it is absent.
    """
    location = check_location(str(uri))
    return _open_bucket(location, create=create) if is_object_url(location) else _open_folder(location, create=create)


def _open_folder(location: str, *, create: bool) -> Store:
    root = Path(location)
    if create:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"store {root}: expected a folder, found a file") from error
    elif not root.is_dir():
        raise NotInStore(f"store {root}: no such folder")
    return Store(FolderFiles(root))


def _open_bucket(url: str, *, create: bool) -> Store:
    from labelmill.tasks.store.object_files import PROBE, ObjectFiles, prove_store

    files = ObjectFiles(url, url)
    if create:
        prove_store(url)
    elif not files.folders() and files.info(PROBE) is None:
        raise NotInStore(f"store {url}: nothing is there")
    return Store(files)
