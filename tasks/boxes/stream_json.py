"""Read a large JSON object piece by piece: long lists in batches, in bounded memory."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from labelmill.schemas.errors import BadInput

WINDOW_BYTES = 2**20
"""JSON parsed at once; what stays in the processor's cache is parsed twice as fast."""

VALUE_BYTES_MAX = 256 * 2**20
"""No single value of an annotation file is longer; one that seems so is text that never ends."""

_SPACE = re.compile(rb"[ \t\r\n]*")
_TEXT_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT_ITEM = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*\{")
_END_OF_LIST = re.compile(rb"\}[ \t\r\n]*\][ \t\r\n]*(?:,[ \t\r\n]*\"|\})")
_ATTEMPTS = 4
"""Places to cut a window at before the slow way, which reads item by item and needs no guess."""

_DECODER = json.JSONDecoder()


class Readable(Protocol):
    """What JSON is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, fewer only at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPiece:
    """Some items of the list under a top-level key, or with `items` None the key's whole value.

    `plain` says that the numbers are finite and fit 64 bits and that texts are valid UTF-8.
    """

    key: str
    items: list[Any] | None
    value: Any = None
    plain: bool = True


def stream_json(
    stream: Readable, *, what: str, lists: frozenset[str], raw_key: str | None = None
) -> Iterator[JsonPiece]:
    """Yield the values of a JSON object's keys in order, those of `lists` in batches of items.

    A list that is empty gives one empty batch. `what` names the file in errors. Raises BadInput, with the byte, when
    the object ends early, is followed by something else or is no JSON, or when one of `lists` is no list. NaN and
    Infinity, which Python writes, are read.

    With `raw_key` the values of that key of the items are bytes, as the file has them, where they are lists of numbers,
    however nested: that is faster, and for a file that was read whole before, since nobody looks at what they are.
    """
    reader = _Reader(stream, what, _RawValues(raw_key) if raw_key else None)
    reader.take(b"{")
    while reader.peek() != b"}":
        key = reader.read_value()
        if not isinstance(key, str):
            raise reader.fail(f"expected a key, got {str(key)[:40]}")
        reader.inside = f" in {key!r}"
        reader.take(b":")
        if key in lists:
            yield from _stream_list(reader, key)
        else:
            yield JsonPiece(key=key, items=None, value=reader.read_value(), plain=False)
        reader.inside = ""
        if reader.peek() != b"}":
            reader.take(b",")
            if reader.peek() == b"}":
                raise reader.fail("expected a key behind the comma, got '}'")
    reader.take(b"}")
    if reader.peek():
        raise reader.fail("expected nothing behind the object")


def _stream_list(reader: _Reader, key: str) -> Iterator[JsonPiece]:
    reader.take(b"[")
    if reader.peek() == b"]":
        yield JsonPiece(key=key, items=[])
    while reader.peek() != b"]":
        items, plain = reader.read_items()
        yield JsonPiece(key=key, items=items, plain=plain)
        if reader.peek() != b"]":
            reader.take(b",")
            if reader.peek() == b"]":
                raise reader.fail("expected an item behind the comma, got ']'")
    reader.take(b"]")


class _Reader:
    """A window that moves over the file; `at` is the next byte in it."""

    def __init__(self, stream: Readable, what: str, raw: _RawValues | None) -> None:
        self._stream, self._what, self._raw = stream, what, raw
        self._window, self._at, self._before = b"", 0, 0
        self._ended = False
        self.inside = ""
        self._fill(WINDOW_BYTES)
        if self._window.startswith(codecs.BOM_UTF8):
            self._at = len(codecs.BOM_UTF8)

    def fail(self, problem: str) -> BadInput:
        """Return the error that says where the problem is."""
        if self._ended and _SPACE.fullmatch(self._window, self._at):
            problem = "the file ends here: it is cut, or empty; fetch it again"
        return BadInput(f"annotations: {self._what}: byte {self._before + self._at}{self.inside}: {problem}")

    def _fill(self, size: int) -> None:
        """Have at least `size` bytes ahead, unless the file ends before."""
        lacking = size - (len(self._window) - self._at)
        if lacking <= 0 or self._ended:
            return
        data = self._stream.read(max(lacking, WINDOW_BYTES))
        self._ended = len(data) < max(lacking, WINDOW_BYTES)
        self._before += self._at
        self._window, self._at = self._window[self._at :] + data, 0

    def peek(self) -> bytes:
        """Return the next byte that is no space, b"" at the end."""
        while True:
            self._at = _SPACE.match(self._window, self._at).end()  # type: ignore[union-attr]  # matches nothing too
            if self._at < len(self._window) or self._ended:
                return self._window[self._at : self._at + 1]
            self._fill(WINDOW_BYTES)

    def take(self, expected: bytes) -> None:
        """Step over a byte; raise BadInput when it is another."""
        if self.peek() != expected:
            raise self.fail(f"expected {expected.decode()!r}, got {self.peek().decode('latin-1')!r}")
        self._at += 1

    def read_value(self) -> Any:  # noqa: ANN401 - any JSON
        """Read one value."""
        self.peek()
        size = 64 * 2**10
        while True:
            self._fill(size)
            text = self._decode(self._window[self._at : self._at + size])
            try:
                value, end = _DECODER.raw_decode(text)
            except (json.JSONDecodeError, RecursionError) as error:
                self._refuse_endless(size, error)
            else:
                # A number at the window's end may go on behind it.
                if end < len(text) or self._is_last(size):
                    self._at += len(text[:end].encode())
                    return value
            size *= 2

    def _is_last(self, size: int) -> bool:
        return self._ended and len(self._window) - self._at <= size

    def _refuse_endless(self, size: int, error: Exception) -> None:
        if isinstance(error, RecursionError):
            raise self.fail("nested too deeply") from error
        assert isinstance(error, json.JSONDecodeError)  # noqa: S101 - the other kind
        if not self._is_last(size) and size <= VALUE_BYTES_MAX:
            return
        if self._is_last(size):
            raise self.fail(f"the file is cut, or no JSON: {error.msg} (character {error.pos} from there)") from error
        raise self.fail(f"a value of more than {VALUE_BYTES_MAX} bytes: {error.msg}") from error

    def _decode(self, data: bytes) -> str:
        try:
            return codecs.utf_8_decode(data, "strict", False)[0]
        except UnicodeDecodeError as error:
            raise self.fail(f"expected UTF-8: {error.reason}") from error

    def read_items(self) -> tuple[list[Any], bool]:
        """Read items of a list, at least one, up to where the window ends; tell whether they are plain."""
        self._fill(WINDOW_BYTES)
        for end in self._guess_ends():
            try:
                # What parses so is whole items: any other end would leave a text or a bracket open.
                items = self._parse(self._window[self._at : end])
            except orjson.JSONDecodeError:
                continue
            self._at = end
            return items, True
        return self._read_items_slowly(), False

    def _parse(self, data: bytes) -> list[Any]:
        if self._raw is not None and (items := self._raw.parse(data)) is not None:
            return items
        return _parse_list(data)

    def _guess_ends(self) -> Iterator[int]:
        if found := _END_OF_LIST.search(self._window, self._at):
            yield found.start() + 1
        end = len(self._window)
        for _ in range(_ATTEMPTS):
            while (end := self._window.rfind(b"}", self._at, end)) >= 0:
                if _NEXT_ITEM.match(self._window, end + 1):
                    yield end + 1
                    break
            if end < 0:
                return

    def _read_items_slowly(self) -> list[Any]:
        size = WINDOW_BYTES
        while True:
            self._fill(size)
            text = self._decode(self._window[self._at : self._at + size])
            items, end, error = _read_whole_items(text, last=self._is_last(size))
            if items:
                self._at += len(text[:end].encode())
                return items
            self._refuse_endless(size, error or json.JSONDecodeError("no whole item", text, 0))
            size *= 2


def _parse_list(data: bytes) -> list[Any]:
    items: list[Any] = orjson.loads(b"[%b]" % data)
    return items


class _RawValues:
    """Parse items without the numbers of one key: `"key": [[1, 2]]` is read as `"key":0`, the place in a list."""

    def __init__(self, key: str) -> None:
        self._key = key
        # Such a text in quotes is never a part of another text, where its quotes would have backslashes.
        self._pattern = re.compile(
            rb"\"%b\"[ \t\r\n]*:[ \t\r\n]*(\[[\[\]0-9.,eE+\- \t\r\n]*\])" % re.escape(key.encode())
        )
        self._places: list[bytes] = []

    def parse(self, data: bytes) -> list[Any] | None:
        """Return the items, None when the key is also found deeper in them, where nobody would put it back."""
        pieces = self._pattern.split(data)
        found = pieces[1::2]
        while len(self._places) < len(found):
            self._places.append(b'"%b":%d' % (self._key.encode(), len(self._places)))
        pieces[1::2] = self._places[: len(found)]
        items = _parse_list(b"".join(pieces))
        cuts = [item for item in items if type(item) is dict and type(item.get(self._key)) is int]
        if [item[self._key] for item in cuts] != list(range(len(found))):
            return None
        for item, value in zip(cuts, found, strict=True):
            item[self._key] = value
        return items


def _read_whole_items(text: str, *, last: bool) -> tuple[list[Any], int, Exception | None]:
    """Return the whole items that a text begins with, where the last one ends, and what stopped the reading."""
    items: list[Any] = []
    start = end = 0
    while True:
        try:
            value, stop = _DECODER.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError) as error:
            return items, end, error
        if stop == len(text) and not last:
            return items, end, None
        items.append(value)
        end = stop
        comma = _TEXT_SPACE.match(text, stop).end()  # type: ignore[union-attr]  # matches nothing too
        if text[comma : comma + 1] != ",":
            return items, end, None
        start = _TEXT_SPACE.match(text, comma + 1).end()  # type: ignore[union-attr]


class HashingStream:
    """A binary stream that computes the sha256 of what was read of it, and tells how many bytes each reading gave."""

    def __init__(self, stream: Readable, on_bytes: Callable[[int], None] = lambda n: None) -> None:
        self._stream, self._hash, self._on_bytes = stream, hashlib.sha256(), on_bytes

    def read(self, size: int = -1, /) -> bytes:
        """Read as the stream does."""
        data = self._stream.read(size)
        self._hash.update(data)
        self._on_bytes(len(data))
        return data

    def hexdigest(self) -> str:
        """Return the hex sha256 of all that was read."""
        return self._hash.hexdigest()
