"""Plan a rename: who gets which name, and in which order nobody stands in another's way."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from labelmill.schemas.errors import BadInput
from labelmill.schemas.rename_template import fields_of, make_path
from labelmill.tasks.rename.list_names import Names

EXAMPLES_SHOWN = 3


class Move(NamedTuple):
    """A file's name before and after, relative to the source; the inode tells it from any other file."""

    before: str
    after: str
    inode: int


class Step(NamedTuple):
    """One call of rename: the file's number among the moves, and from where to where; `last` says that it is there."""

    file: int
    source: str
    target: str
    last: bool = True


def make_moves(
    names: Names, template: str, *, first: int, contents: Mapping[str, tuple[str, int]] | None = None
) -> list[Move]:
    """Return the files that get another name, in natural order.

    `contents` has (sha256, bytes) by path where the template asks for them; files that it lacks are left alone. Raises
    BadInput when two files would get one name, or one that is taken by what is not renamed.
    """
    needs_content = bool(fields_of(template) & {"hash", "bytes"})
    numbers: dict[str, int] = {}
    planned: list[Move] = []
    index = first
    fields: dict[str, object] = {}
    for path, inode in names.files:
        if needs_content and path not in (contents or {}):
            planned.append(Move(path, path, inode))
            continue
        folder, _, name = path.rpartition("/")
        stem, dot, suffix = name.rpartition(".")  # no name begins with a dot: hidden files are left alone
        label = folder.partition("/")[0]
        number = numbers.get(label, first)
        fields["index"], fields["number"], fields["name"], fields["class"] = index, number, name, label
        fields["stem"], fields["ext"], fields["folder"] = stem or name, dot + suffix if dot else "", folder
        if contents and needs_content:
            fields["hash"], fields["bytes"] = contents[path]
        planned.append(Move(path, make_path(folder, template.format_map(fields)), inode))
        numbers[label] = number + 1
        index += 1
    _refuse_collisions(planned, names)
    return [move for move in planned if move.before != move.after]


def _refuse_collisions(planned: Sequence[Move], names: Names) -> None:
    fold = str.casefold if names.ignores_case else str
    taken = {fold(path) for path in names.others}
    after = {fold(move.after) for move in planned}
    folders = {above for folder in {path.rpartition("/")[0] for path in after} for above in _with_above(folder)}
    files = after.union(fold(path) for path, _ in names.files) if folders else set()
    if len(after) < len(planned) or not taken.isdisjoint(after) or not folders.isdisjoint(files):
        clashes = [*_name_clashes(planned, taken, fold)]
        clashes += [f"{folder!r} would be a folder and a file" for folder in sorted(folders & files)]
        shown = "; ".join(clashes[:EXAMPLES_SHOWN])
        more = f"; and {len(clashes) - EXAMPLES_SHOWN} more" if len(clashes) > EXAMPLES_SHOWN else ""
        raise BadInput(f"template: names would collide: {shown}{more}; nothing was renamed")


def _name_clashes(planned: Sequence[Move], taken: set[str], fold: Callable[[str], str]) -> Iterator[str]:
    owner: dict[str, str] = {}
    for before, after, _ in planned:
        key = fold(after)
        if key in owner:
            yield f"{owner[key]!r} and {before!r} would both become {after!r}"
        elif key in taken:
            yield f"{before!r} would become {after!r}, which is there and stays"
        owner[key] = before


def _with_above(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = posixpath.dirname(folder)


def order_steps(
    moves: Sequence[tuple[int, str, str]], *, detour: Callable[[int], str], ignores_case: bool = False
) -> Iterator[Step]:
    """Yield steps that bring each (file, from, to) to its place, none onto a name that is still in use.

    A chain begins at its free end; a cycle, and a change of case alone, takes a detour over the name `detour(file)`.
    """
    fold = str.casefold if ignores_case else str
    holder = {fold(source): place for place, (_, source, _) in enumerate(moves)}
    done = bytearray(len(moves))
    for begin, (_, _, target) in enumerate(moves):
        if done[begin]:
            continue
        path, at = [begin], holder.get(fold(target))
        while at is not None and not done[at] and at != begin:
            path.append(at)
            at = holder.get(fold(moves[at][2]))
        for place in path:
            done[place] = True
        # Every name has one holder, so that a way that comes back comes back to its beginning.
        closed = at == begin and len(path) > 1
        yield from _walk([moves[place] for place in path], detour, closed=closed)


def _walk(path: Sequence[tuple[int, str, str]], detour: Callable[[int], str], *, closed: bool) -> Iterator[Step]:
    """Yield the steps of a chain, each of whose files takes the name of the next, or of a cycle."""
    first, source, target = path[0]
    if closed:
        yield Step(first, source, detour(first), last=False)
    for file, before, after in reversed(path[1:] if closed else path):
        # a file system that ignores case would find the name taken
        if len(before) == len(after) and before.casefold() == after.casefold():
            yield Step(file, before, detour(file), last=False)
            yield Step(file, detour(file), after)
        else:
            yield Step(file, before, after)
    if closed:
        yield Step(first, detour(first), target)
