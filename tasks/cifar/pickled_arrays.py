"""Find what lies in a pickle without unpickling it: nothing that a pickle names is ever imported or called."""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from labelmill.schemas.errors import BadInput

_LONG_BYTES = 1024
"""Longer strings are not kept but remembered by their place: they are the arrays."""

_LENGTH_BYTES = {
    "BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8, "SHORT_BINBYTES": 1, "SHORT_BINSTRING": 1,
}  # fmt: skip
"""Opcodes whose argument lies in the pickle as plain bytes, by the bytes of the length before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Bytes of the pickle itself, by offset and length in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledArray:
    """A contiguous array of uint8 in a pickle: where its bytes lie, and its shape."""

    stretch: Stretch
    shape: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class _Object:
    """What a pickle would have made by a call: the function's name, the arguments, and the state set afterwards."""

    name: object
    arguments: object
    state: object = None


class _Mark:
    """The place where a list, tuple or dictionary begins."""


def read_pickle(data: bytes, name: str) -> object:
    """Return what a pickle holds: dictionaries, lists, tuples, numbers and texts as they are, arrays as PickledArray.

    Other objects are kept as descriptions, and long strings as Stretch. `name` is for messages. Raises BadInput for
    what is no pickle, or has opcodes that the files of CIFAR do not need.
    """
    try:
        return _describe(_walk(data))
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, UnicodeError) as error:
        raise BadInput(f"{name}: not a whole pickle: {str(error)[:100]}") from error


def _walk(data: bytes) -> object:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    operations: Iterator[tuple[Any, Any, int | None]] = pickletools.genops(data)
    for opcode, argument, position in operations:
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if position is None:
            raise BadInput("a pickle without places")
        if name in _LENGTH_BYTES:
            offset = position + 1 + _LENGTH_BYTES[name]
            stack.append(_keep(data, offset, len(argument)))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument)])
        elif name in _PUSHED:
            stack.append(_PUSHED[name](argument))
        elif name in _STEPS:
            _STEPS[name](stack)
        elif name not in ("PROTO", "FRAME"):
            raise BadInput(f"a pickle with the opcode {name}, which no file of CIFAR has; it is not read")
    raise BadInput("a pickle without an end")


def _keep(data: bytes, offset: int, length: int) -> bytes | Stretch:
    if length > _LONG_BYTES:
        return Stretch(offset=offset, length=length)
    return data[offset : offset + length]


def _to_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while not isinstance(item := stack.pop(), _Mark):
        items.append(item)
    return items[::-1]


def _set_items(stack: list[Any]) -> None:
    items = _to_mark(stack)
    stack[-1].update({_as_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    stack[-1][_as_key(key)] = value


def _as_key(key: object) -> object:
    """Return a key as text: Python 2 wrote bytes."""
    return key.decode("ascii", "backslashreplace") if isinstance(key, bytes) else key


def _append(stack: list[Any]) -> None:
    item = stack.pop()
    stack[-1].append(item)


def _appends(stack: list[Any]) -> None:
    items = _to_mark(stack)
    stack[-1].extend(items)


def _call(stack: list[Any]) -> None:
    arguments = stack.pop()
    stack.append(_Object(name=stack.pop(), arguments=arguments))


def _set_state(stack: list[Any]) -> None:
    state = stack.pop()
    stack[-1].state = state


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def make(stack: list[Any]) -> None:
        stack[-count:] = [tuple(stack[-count:])]

    return make


_STEPS: dict[str, Callable[[list[Any]], None]] = {
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "REDUCE": _call,
    "BUILD": _set_state,
    "TUPLE": lambda stack: stack.append(tuple(_to_mark(stack))),
    "LIST": lambda stack: stack.append(_to_mark(stack)),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "STACK_GLOBAL": lambda stack: stack.append(f"{stack.pop(-2)} {stack.pop()}"),
}

_PUSHED: dict[str, Callable[[Any], Any]] = {
    "MARK": lambda _: _Mark(),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"), lambda value: value),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "UNICODE"), lambda value: value),
    "GLOBAL": lambda name: name,
}


def _describe(value: object) -> object:
    """Replace the arrays in what was found, one level deep: a file of CIFAR is a dictionary."""
    if not isinstance(value, dict):
        return value
    return {key: _as_array(item) if isinstance(item, _Object) else item for key, item in value.items()}


def _as_array(made: _Object) -> object:
    """Return a PickledArray for numpy's way to pickle an array of uint8 in C order, else the description."""
    if not str(made.name).endswith(" _reconstruct") or not isinstance(made.state, tuple) or len(made.state) != 5:
        return made
    _, shape, dtype, by_columns, content = made.state
    kind = dtype.arguments[0] if isinstance(dtype, _Object) and isinstance(dtype.arguments, tuple) else None
    if by_columns or kind not in (b"u1", "u1") or not isinstance(content, Stretch):
        return made
    if math.prod(shape) != content.length:
        raise BadInput(f"an array of {content.length} bytes for the shape {shape}")
    return PickledArray(stretch=content, shape=tuple(shape))
