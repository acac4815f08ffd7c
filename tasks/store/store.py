"""A store: a folder of datasets, each a folder of tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.names import split_table_name
from labelmill.schemas.versions import Version
from labelmill.tasks.store.table import Table

if TYPE_CHECKING:
    from labelmill.tasks.store.connection import StoreConnection

_LOCAL_SCHEME = "file://"


class Store:
    """Tables with versions below a folder. Paths inside are relative: a copied folder is a store too."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def tables(self, *, unlisted: bool = False) -> list[str]:
        """Return the names `dataset.table` of all tables that have a version, sorted.

        With `unlisted` also those without: all versions deleted, or none committed yet.
        """
        pattern = "*/*/parts" if unlisted else "*/*/versions"
        found = {f"{folder.parent.parent.name}.{folder.parent.name}" for folder in self.root.glob(pattern)}
        return sorted(name for name in found if self._is_table(name) and (unlisted or Table(self.root, name).numbers()))

    def table(self, name: str) -> Table:
        """Return the table `dataset.table`, which need not exist yet; raise BadInput for a name of another form."""
        return Table(self.root, name)

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
    """Open the store in a folder (a path or a file:// URL).

    Raises NotInStore when the folder does not exist (with `create` it is made), BadInput for a URL of a back end
    that cannot promise to create a version only if it is absent.
    """
    text = str(uri)
    if "://" in text and not text.startswith(_LOCAL_SCHEME):
        scheme = text.split("://", 1)[0]
        raise BadInput(
            f"store {scheme}://…: expected a folder; a store needs a back end that never replaces a version, "
            "and of these only the local file system is supported yet"
        )
    root = Path(text.removeprefix(_LOCAL_SCHEME)).expanduser().absolute()
    if create:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"store {root}: expected a folder, found a file") from error
    elif not root.is_dir():
        raise NotInStore(f"store {root}: no such folder")
    return Store(root)
