"""Templates of file names, such as `{class}/{number:05d}{ext}`: which fields there are, and what they may make."""

from __future__ import annotations

import os
import posixpath
import re
from string import Formatter

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_plain_path

RENAME_FIELDS: dict[str, tuple[str | int, str]] = {
    "index": (0, "place among all files in natural order, from --first on"),
    "number": (0, "the same within the file's first folder"),
    "stem": ("cat", "name without suffix"),
    "ext": (".jpg", "suffix with its dot, as it is"),
    "name": ("cat.jpg", "stem and suffix"),
    "class": ("cats", "first folder, empty for a file directly in the source"),
    "folder": ("cats/black", "folder below the source, empty for a file directly in it"),
    "hash": ("0" * 64, "sha256 of the content in hexadecimal; {hash:.12} takes the first twelve"),
    "bytes": (1, "size of the file in bytes"),
}
"""Each field with an example of its type and what it stands for."""

NAME_BYTES_MAX = 255
"""What file systems take for a name."""

_HUGE_WIDTH = re.compile(r"[1-9][0-9]{3}")

_CHARACTERS_SURE = NAME_BYTES_MAX // 4
"""As many characters fit in any case."""


def check_template(template: str) -> str:
    """Return a template of names; raise BadInput for unknown fields and for formats that do not fit their values."""
    if not fields_of(template):
        raise BadInput(f"expected at least one field in {template!r}; fields: {', '.join(RENAME_FIELDS)}")
    examples = {name: example for name, (example, _) in RENAME_FIELDS.items()}
    try:
        made = template.format_map(examples)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{template!r}: a format does not fit its field: {error}") from error
    make_path("", made)
    return template


def fields_of(template: str) -> set[str]:
    """Return the names of the fields in a template; raise BadInput for what is no plain field of RENAME_FIELDS."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise BadInput(f"{template!r}: {error}; write braces that stand for themselves twice") from error
    names = set()
    for _, name, form, conversion in parsed:
        if name is None:
            continue
        if name not in RENAME_FIELDS or conversion or "{" in (form or ""):
            raise BadInput(f"{template!r}: no field {{{name}}}; fields: {', '.join(RENAME_FIELDS)}")
        if _HUGE_WIDTH.search(form or ""):  # Python would make it first, of gigabytes
            raise BadInput(f"{template!r}: the width of {{{name}:{form}}}: a name has at most {NAME_BYTES_MAX} bytes")
        names.add(name)
    return names


def make_path(folder: str, made: str) -> str:
    """Return a path below the source from what a template made: in the file's own folder unless it has a slash.

    Raises BadInput for one that leads out of the source or that no file system takes.
    """
    if "/" not in made:
        path, strange = f"{folder}/{made}" if folder else made, made in ("", ".", "..")
    else:
        path = posixpath.normpath(made.lstrip("/"))
        strange = not is_plain_path(path)
    if strange or "\0" in made:
        raise BadInput(f"template: made {made!r}; expected a name, or a path that stays below the source")
    if len(path) > _CHARACTERS_SURE and max(len(os.fsencode(part)) for part in path.split("/")) > NAME_BYTES_MAX:
        raise BadInput(f"template: made {made[:60]!r}…; a name has at most {NAME_BYTES_MAX} bytes")
    return path
