"""How a uri names an image inside a container: `CONTAINER//KIND:ADDRESS`.

No listed path and no object's key has an empty part, so that `//` tells a member from a file. A container is a file (of
an LMDB environment also its folder), and its path is relative to the split's root, as a file's own uri is.

    train.tar//bytes:1536+110233          bytes 1536 to 111768, as they are
    images.zip//deflate:87+900+1200       900 bytes from 87 on, 1,200 when inflated
    bedroom_train_lmdb//lmdb:6132…        the value of a key, in hexadecimal
    train.parquet//parquet:17:image.bytes row 17 of a column, which may be a field of a struct
    data_batch_1.bin//planes:1+32x32      red, green and blue planes of 32 rows of 32 pixels
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote

_URI = re.compile(r"(.+)//(bytes|deflate|lmdb|parquet|planes):([^/]+)", re.DOTALL)
_BYTES = re.compile(r"(\d+)\+(\d+)")
_DEFLATED = re.compile(r"(\d+)\+(\d+)\+(\d+)")
_LMDB = re.compile(r"((?:[0-9a-f]{2})+)")
_PARQUET = re.compile(r"(\d+):(.+)")
_PLANES = re.compile(r"(\d+)\+(\d{1,5})x(\d{1,5})")


class Member(Protocol):
    """Where an image lies in its container."""

    @property
    def address(self) -> str:
        """Return `KIND:ADDRESS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Bytes of the container as they are; in bytes."""

    offset: int
    length: int

    @property
    def address(self) -> str:
        """See Member."""
        return f"bytes:{self.offset}+{self.length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeflatedRange:
    """A raw deflate stream of `compressed` bytes, which hold `length`."""

    offset: int
    compressed: int
    length: int

    @property
    def address(self) -> str:
        """See Member."""
        return f"deflate:{self.offset}+{self.compressed}+{self.length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LmdbValue:
    """The value of a key of an LMDB environment."""

    key: bytes

    @property
    def address(self) -> str:
        """See Member."""
        return f"lmdb:{self.key.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetCell:
    """A binary value of a Parquet file; `column` has dots between a struct and its field, `row` counts from 0."""

    row: int
    column: str

    @property
    def address(self) -> str:
        """See Member."""
        return f"parquet:{self.row}:{quote(self.column, safe='')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelPlanes:
    """Three planes of uint8, red, green and blue, each `height` rows of `width`: no encoded image."""

    offset: int
    height: int
    width: int

    @property
    def address(self) -> str:
        """See Member."""
        return f"planes:{self.offset}+{self.height}x{self.width}"


def name_member(container: str, member: Member) -> str:
    """Return the uri of a member of a container."""
    return f"{container}//{member.address}"


def split_member(uri: str) -> tuple[str, Member] | None:
    """Return the container and the member that a uri or a path made of it names, None when it names a file."""
    if "//" not in uri:  # most paths, and many of them
        return None
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    member = _parse(match[2], match[3])
    return None if member is None else (match[1], member)


def _parse(kind: str, address: str) -> Member | None:
    pattern = {"bytes": _BYTES, "deflate": _DEFLATED, "lmdb": _LMDB, "parquet": _PARQUET, "planes": _PLANES}[kind]
    found = pattern.fullmatch(address)
    if found is None:
        return None
    if kind == "bytes":
        return ByteRange(offset=int(found[1]), length=int(found[2]))
    if kind == "deflate":
        return DeflatedRange(offset=int(found[1]), compressed=int(found[2]), length=int(found[3]))
    if kind == "lmdb":
        return LmdbValue(key=bytes.fromhex(found[1]))
    if kind == "parquet":
        return ParquetCell(row=int(found[1]), column=unquote(found[2]))
    return PixelPlanes(offset=int(found[1]), height=int(found[2]), width=int(found[3]))
