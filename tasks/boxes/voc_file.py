"""Read one XML file of Pascal VOC, without declarations: no entity is ever expanded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

_DEPTH_MAX = 32
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)

CORNERS = ("xmin", "ymin", "xmax", "ymax")

Value = str | dict[str, "Value"] | list["Value"]


class BadXml(ValueError):
    """A file that is no annotation of VOC, and why."""


@dataclass(slots=True)
class _Element:
    children: dict[str, Value] = field(default_factory=dict)
    text: str = ""

    def value(self) -> Value:
        return self.children if self.children else self.text.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class VocObject:
    """An object: its class, its corners as they stand there, counted from 1, None unless there are four numbers."""

    name: str | None
    corners: tuple[float, float, float, float] | None
    difficult: bool | None
    rest: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class VocFile:
    """An annotation: the image's name and size as it says, its objects, and all else."""

    file_name: str | None
    width: int | None
    height: int | None
    objects: tuple[VocObject, ...]
    rest: Mapping[str, Value]


def parse_voc(data: bytes) -> VocFile:
    """Read an annotation; raise BadXml for what is no XML, declares entities or has another root."""
    facts = _parse(data)
    objects = facts.pop("object", [])
    size = facts.get("size")
    width, height = (_whole(size.get(name)) if isinstance(size, dict) else None for name in ("width", "height"))
    name = facts.pop("filename", None)
    return VocFile(
        file_name=name if isinstance(name, str) and name else None,
        width=width,
        height=height,
        objects=tuple(_read_object(item) for item in (objects if isinstance(objects, list) else [objects])),
        rest=facts,
    )


def _parse(data: bytes) -> dict[str, Value]:
    parser = expat.ParserCreate()
    stack = [_Element()]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEPTH_MAX:
            raise BadXml("nested too deeply")
        stack.append(_Element())

    def end(name: str) -> None:
        value = stack.pop().value()
        siblings = stack[-1].children
        if name not in siblings:
            siblings[name] = value
        elif isinstance(known := siblings[name], list):
            known.append(value)
        else:
            siblings[name] = [known, value]

    def add_text(text: str) -> None:
        stack[-1].text += text

    def refuse(*_: object) -> None:
        raise BadXml("it declares a document type, which could hold entities; annotations need none")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = add_text, refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise BadXml(str(error)) from error
    root = stack[0].children.get("annotation")
    if not isinstance(root, dict):
        raise BadXml(f"expected <annotation>, got <{next(iter(stack[0].children), '')}>")
    return root


def _read_object(item: Value) -> VocObject:
    if not isinstance(item, dict):
        return VocObject(name=None, corners=None, difficult=None, rest={"object": item})
    rest = dict(item)
    name = rest.get("name")
    if isinstance(name, str) and name:
        del rest["name"]
    box = rest.get("bndbox")
    numbers = [_number(box.get(corner)) for corner in CORNERS] if isinstance(box, dict) else []
    found = [number for number in numbers if number is not None]
    corners = (found[0], found[1], found[2], found[3]) if len(found) == 4 else None
    if corners is not None:
        del rest["bndbox"]
    difficult = {"0": False, "1": True}.get(str(rest.get("difficult")))
    if difficult is not None:
        del rest["difficult"]
    return VocObject(
        name=name if isinstance(name, str) and name else None, corners=corners, difficult=difficult, rest=rest
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) else None
