"""One versioned table: immutable parts, and versions that are written last and never replaced."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from labelmill.schemas.errors import BadInput, NotInStore, StoreDamaged
from labelmill.schemas.names import split_table_name
from labelmill.schemas.versions import Column, Lineage, Operation, Part, Version, canonical_json
from labelmill.tasks.store.files import hash_file
from labelmill.tasks.store.folder_files import FolderFiles
from labelmill.tasks.store.parquet import Layout, write_parquet
from labelmill.tasks.store.place import Files
from labelmill.tasks.store.receipts import Receipts

_VERSION_FILE = re.compile(r"(\d{6,})(\.deleted)?\.json")
_NAME_OF_A_VIEW = re.compile(r"(label_cells|label_classes).*|.*_v\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a commit makes of the version before it: the new version's parts in order, and its metadata."""

    operation: Operation
    parts: Sequence[Part]
    metadata: dict[str, Any]


class Table:
    """A table of a store. Nothing is kept in memory: every call looks at the files."""

    def __init__(self, store: Files | Path, name: str) -> None:
        dataset, table = split_table_name(name)
        self.name = name
        self.files = (FolderFiles(store) if isinstance(store, Path) else store).below(f"{dataset}/{table}")
        self.receipts = Receipts(self.files)

    @property
    def folder(self) -> Path | str:
        """The table's folder, or its URL."""
        return self.files.root

    def check_name(self) -> None:
        """Raise BadInput for a name that SQL's views have: no version can be committed under it."""
        if _NAME_OF_A_VIEW.fullmatch(self.name.partition(".")[2]):
            raise BadInput(
                f"table name {self.name!r}: names that end in _v and a number, or start with label_cells or "
                "label_classes, are those of views"
            )

    def exists(self) -> bool:
        """Tell whether there is anything of this table."""
        return bool(self.files.folders())

    def numbers(self, *, deleted: bool = False) -> list[int]:
        """Return the numbers of the versions that exist, or with `deleted` of those with a tombstone, ascending."""
        live: set[int] = set()
        dead: set[int] = set()
        for name in self.files.names("versions"):
            if match := _VERSION_FILE.fullmatch(name):
                (dead if match[2] else live).add(int(match[1]))
        return sorted(dead if deleted else live - dead)

    def version(self, number: int | None = None) -> Version:
        """Return a version, the latest by default.

        Raises NotInStore when there is none, or it was deleted; StoreDamaged when its file was altered.
        """
        numbers = self.numbers()
        if number is None:
            if not numbers:
                raise NotInStore(f"{self.name}: no such table in this store")
            number = numbers[-1]
        else:
            self._check_listed(number, numbers)
        return self._load(number)

    def versions(self) -> list[Version]:
        """Return all versions, oldest first; raise StoreDamaged when the file of one was altered."""
        found = dict(self.files.read_all([_version_file(number) for number in self.numbers()]))
        return [self._parse(path, data) for path, data in found.items()]

    def _check_listed(self, number: int, numbers: Sequence[int]) -> None:
        if number not in numbers:
            gone = "was deleted" if number in self.numbers(deleted=True) else "does not exist"
            known = ", ".join(map(str, numbers)) or "none"
            raise NotInStore(f"{self.name}: version {number} {gone}; versions: {known}")

    def _load(self, number: int) -> Version:
        path = _version_file(number)
        return self._parse(path, self.files.read(path))

    def _parse(self, file: str, data: bytes) -> Version:
        path = self.files.at(file)
        try:
            version = Version.model_validate_json(data)
        except ValidationError as error:
            raise StoreDamaged(f"{path}: not a version file: {error.errors()[0]['msg']}") from error
        if version.digest() != version.sha256 or _version_file(version.number) != file:
            raise StoreDamaged(f"{path}: content does not match its own sha256; restore the file or delete the version")
        return version

    def latest(self) -> Version | None:
        """Return the latest version, or None when the table has none."""
        return self.version() if self.numbers() else None

    def write_part(self, rows: pa.Table, *, key: str, layout: Layout | None = None) -> Part:
        """Write an immutable part durably and return its entry; no version lists it yet.

        Its name is made of `key` and its content, so that writing the same rows again gives the same part.
        """
        with self.files.draft("parts", ".parquet") as draft:
            write_parquet(draft, rows, layout or Layout())
            sha256 = hash_file(draft)
            size = draft.stat().st_size
            path = f"parts/{key[:16]}-{sha256[:16]}.parquet"
            self.files.put(draft, path)
        return Part(path=path, rows=rows.num_rows, bytes=size, sha256=sha256)

    def commit(
        self, change: Callable[[Version | None], Change | None], *, schema: pa.Schema, lineage: Lineage
    ) -> Version:
        """Make a new version visible and return it.

        `change` gets the latest version (None for a new table) and is asked again when another writer was first, so
        that both end as versions and none loses the other's rows; where it returns None, the latest is what was
        wanted and stays. Raises BadInput for a change without parts or with other columns, StoreDamaged when a part
        is not there.
        """
        self.check_name()
        columns = tuple(Column(name=f.name, type=str(f.type)) for f in schema)
        while True:
            # Before `latest`: a version that another writer adds from here on takes this number, and we begin anew.
            number = max([0, *self.numbers(), *self.numbers(deleted=True)]) + 1
            latest = self.latest()
            made = change(latest)
            if made is None:
                assert latest is not None  # noqa: S101 - there is no version that could be wanted
                return latest
            if not made.parts:
                raise BadInput(f"{self.name}: a version needs at least one part")
            if made.operation == "append" and latest is not None and latest.columns != columns:
                raise BadInput(f"{self.name}: cannot append, columns differ from version {latest.number}; use replace")
            version = Version(
                table=self.name,
                number=number,
                parent=latest.number if latest else None,
                operation=made.operation,
                rows=sum(p.rows for p in made.parts),
                columns=columns,
                metadata=made.metadata,
                parts=tuple(made.parts),
                lineage=lineage,
            )
            version = version.model_copy(update={"sha256": version.digest()})
            if self._create(version):
                return version

    def _create(self, version: Version) -> bool:
        """Write a version's file; return False when another writer has taken its number."""
        paths = [part.path for part in version.parts]
        with self.files.claim(paths):  # gc removes no part between the look at it and the version
            if lost := self.files.lacking(paths):
                raise StoreDamaged(f"{self.name}: {len(lost)} parts are gone, for example {lost[0]}; run again")
            try:
                self.files.create(
                    _version_file(version.number), canonical_json(version.model_dump(mode="json")).encode()
                )
            except FileExistsError:
                return False
        return True

    def append(
        self, parts: Sequence[Part], *, schema: pa.Schema, metadata: dict[str, Any], lineage: Lineage
    ) -> Version:
        """Commit a version that adds `parts` after those of the latest one."""

        def change(latest: Version | None) -> Change:
            return Change(operation="append", parts=[*(latest.parts if latest else ()), *parts], metadata=metadata)

        return self.commit(change, schema=schema, lineage=lineage)

    def replace(
        self, parts: Sequence[Part], *, schema: pa.Schema, metadata: dict[str, Any], lineage: Lineage
    ) -> Version:
        """Commit a version that holds `parts` and nothing else; the latest stays when it does, with this metadata."""

        def change(latest: Version | None) -> Change | None:
            if latest is not None and (latest.parts, latest.metadata) == (tuple(parts), metadata):
                return None
            return Change(operation="replace", parts=parts, metadata=metadata)

        return self.commit(change, schema=schema, lineage=lineage)

    def delete(self, number: int, *, reason: str = "") -> None:
        """Put a tombstone on a version, damaged or not: no reader sees it, gc removes the parts that only it lists.

        Raises NotInStore when there is no such version, or it was deleted already.
        """
        self._check_listed(number, self.numbers())
        tombstone = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason}
        try:
            self.files.create(_version_file(number, ".deleted.json"), canonical_json(tombstone).encode())
        except FileExistsError as error:
            raise NotInStore(f"{self.name}: version {number} was deleted") from error

    def part_path(self, part: Part) -> Path | str:
        """Return where a part lies: a path, or an object's URL."""
        return self.files.at(part.path)

    def read_part(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a part's rows; raise StoreDamaged when its file is missing or no Parquet."""
        try:
            with self.files.open(part.path) as stream:
                return pq.ParquetFile(stream).read(columns=list(columns) if columns else None)
        except (OSError, pa.ArrowInvalid) as error:
            raise self._unreadable(part, error) from error

    def read_whole_part(self, part: Part, columns: Sequence[str]) -> pa.Table:
        """Read a part's rows and check its content; raise StoreDamaged when it is not what the version lists."""
        try:
            data = self.files.read(part.path)
            rows = pq.ParquetFile(pa.BufferReader(data)).read(columns=list(columns))
        except (OSError, pa.ArrowInvalid) as error:
            raise self._unreadable(part, error) from error
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise StoreDamaged(f"{self.part_path(part)}: content does not match its sha256; run labelmill verify")
        return rows

    def _unreadable(self, part: Part, error: Exception) -> StoreDamaged:
        return StoreDamaged(f"{self.part_path(part)}: cannot be read ({error}); run labelmill verify")

    def read(self, version: Version, columns: Iterable[str]) -> pa.Table:
        """Read some columns of a whole version, in row order."""
        wanted = list(columns)
        return pa.concat_tables([self.read_part(part, wanted) for part in version.parts])


def _version_file(number: int, suffix: str = ".json") -> str:
    return f"versions/{number:06d}{suffix}"
