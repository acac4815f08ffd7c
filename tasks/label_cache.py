"""The label cache: a part's maps as records in a memory-mapped file, derived from the store and rebuildable.

A file is named by the sha256 of the part and the form of the records, is written beside its place and renamed: a
reader sees a whole file or none, and any number of processes may build one at once. It is an .npy file, and behind that
a CRC-32 of the records, which is checked when the file is opened: what a disk has spoilt is made anew, not trained on.
"""

from __future__ import annotations

import logging
import os
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from labelmill.models.stored_maps import RECORDS_REVISION, Records, holds_maps, pack_maps
from labelmill.schemas.images import Status
from labelmill.schemas.versions import Part
from labelmill.tasks.store.files import TEMPORARY_PREFIX, temporary_beside
from labelmill.tasks.store.table import Table

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "LABELMILL_CACHE"
"""Names the cache's folder; without it, labelmill/ in the user's cache folder."""

LEFTOVER_AGE_S = 24 * 3600.0
"""An unfinished file this old was left by a process that was killed: a part is written in a second."""

_CRC = struct.Struct("<I")

_PACKED_COLUMNS = ("classes", "others", "absent", "index", "top", "drops")


def cache_folder() -> Path:
    """Return the folder of the cache: LABELMILL_CACHE, else labelmill/ in XDG_CACHE_HOME or ~/.cache.

    Raises FileNotFoundError when none is named and the user has no home.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).absolute()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches, "labelmill").absolute()
    try:
        return Path.home() / ".cache" / "labelmill"
    except RuntimeError as error:
        raise FileNotFoundError(f"no home folder; name one by {CACHE_VARIABLE}") from error


class LabelCache:
    """Opens parts of a table of label maps, whose maps have `entries` = H*W*k places.

    Where the folder cannot be written, it says so once and returns records in memory.
    """

    def __init__(self, table: Table, *, entries: int) -> None:
        self._table = table
        self._entries = entries
        self._told = False

    def open(self, part: Part) -> Records:
        """Return a part's records (rows,) to be read only: from the cache, built there first if need be.

        Raises StoreDamaged when the part's file is missing, cannot be read, or is not the one that the version lists;
        what is in the cache does not hide that a part is lost.
        """
        try:
            path = cache_folder() / f"{part.sha256}-maps{RECORDS_REVISION}.npy"
        except FileNotFoundError as error:
            self._tell_unwritable(error)
            return self._derive(part)
        found = None if self._table.files.lacking([part.path]) else self._map(path, part)
        if found is not None:
            return found
        records = self._derive(part)
        if self._write(path, records):
            found = self._map(path, part)
        return records if found is None else found

    def _map(self, path: Path, part: Part) -> Records | None:
        """Map a file into memory; None where there is none, or its shape shows that it is damaged."""
        try:
            if not path.is_file():  # opening a pipe would wait for its writer
                return None
            head = np.lib.format.open_memmap(path, mode="r")
            size = path.stat().st_size
        except OSError:  # where the folder is at fault, writing says so
            return None
        except Exception as error:  # noqa: BLE001 - numpy reads a header as Python text: any error of the parser
            logger.warning("label cache: %s is damaged (%s); making it anew", path, type(error).__name__)
            return None
        kind, start, end = head.dtype, head.offset, head.offset + head.nbytes
        if head.shape != (part.rows,) or size != end + _CRC.size or not holds_maps(kind, self._entries):
            logger.warning("label cache: %s does not hold this part's maps; making it anew", path)
            return None
        del head  # numpy's mapping keeps a file descriptor, of which a process has few; torch's does not
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8, device="cpu").numpy()
        if _CRC.unpack(mapped[end:].tobytes()) != (zlib.crc32(mapped[start:end].data),):
            logger.warning("label cache: %s is damaged (its checksum is another); making it anew", path)
            return None
        return mapped[start:end].view(kind)

    def _derive(self, part: Part) -> Records:
        # Its content is checked: a file under this sha256 would outlive the damage.
        return pack_part(self._table.read_whole_part(part, ["status", *_PACKED_COLUMNS]), entries=self._entries)

    def _write(self, path: Path, records: Records) -> bool:
        """Write a file of the cache; return False where that cannot be done."""
        try:
            with temporary_beside(path) as temporary:
                _sweep(path.parent)
                with temporary.open("xb") as stream:
                    np.lib.format.write_array(stream, records, allow_pickle=False)
                    stream.write(_CRC.pack(zlib.crc32(records.view(np.uint8).data)))
                temporary.replace(path)  # of two builders the later one puts the same bytes in place
        except OSError as error:
            self._tell_unwritable(error)
            return False
        return True

    def _tell_unwritable(self, error: OSError) -> None:
        if not self._told:
            logger.warning(
                "label cache: cannot be written (%s); label maps are kept in memory. "
                "Set %s to a folder that can be written",
                error,
                CACHE_VARIABLE,
            )
        self._told = True


def pack_part(rows: pa.Table, *, entries: int) -> Records:
    """Return the records of a part's rows, which have at least `status` and the columns of the map."""
    done = pc.equal(rows["status"], Status.DONE.value).combine_chunks()
    maps = rows.filter(done).combine_chunks()
    columns = {name: maps[name].combine_chunks() for name in _PACKED_COLUMNS}
    flat = {name: np.asarray(column.flatten()) for name, column in columns.items()}
    lengths = [np.asarray(columns[name].value_lengths()) for name in ("classes", "others")]
    flat["classes"] = _interleave(flat["classes"], flat.pop("others"), lengths)
    return pack_maps(np.asarray(done), flat, lengths[0] + lengths[1], entries=entries)


def _interleave(
    first: npt.NDArray[np.integer[Any]], second: npt.NDArray[np.integer[Any]], lengths: Sequence[npt.NDArray[Any]]
) -> npt.NDArray[np.integer[Any]]:
    """Join lists that lie one after the other, each of `first` with its one of `second`; lengths: (M,) of both."""
    is_first = np.repeat(np.tile([True, False], len(lengths[0])), np.stack(lengths, 1).ravel())
    joined = np.empty(len(is_first), first.dtype)
    joined[is_first], joined[~is_first] = first, second
    return joined


def _sweep(folder: Path) -> None:
    """Remove what builders that were killed left behind."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            old = time.time() - leftover.stat().st_mtime > LEFTOVER_AGE_S
        except FileNotFoundError:  # its builder is done
            continue
        if old:
            leftover.unlink(missing_ok=True)
