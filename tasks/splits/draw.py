"""Draws that depend on a seed and a name alone, and quotas that are met as nearly as whole images can."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

_RANGE = 2**64


def draw(*names: object) -> int:
    """Return a number from 0 to 2**64 − 1 for some names, evenly spread, the same on every machine."""
    text = "\0".join(map(str, names)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Images that must stay together: the places of their rows, the name that is drawn, the class that they count for.

    `kept` is the split that an earlier version gave them.
    """

    name: str
    rows: tuple[int, ...]
    stratum: Hashable
    kept: str | None = None


def split_by_threshold(units: Sequence[Unit], fractions: Mapping[str, Fraction], seed: int) -> list[str]:
    """Return each unit's split by its own draw alone: no unit that comes or goes moves another."""
    bounds: list[tuple[int, str]] = []
    total = Fraction(0)
    for name, fraction in fractions.items():
        total += fraction
        bounds.append((int(total * _RANGE), name))
    draws = [draw("split", seed, unit.name) for unit in units]
    return [next(name for bound, name in bounds if drawn < bound) for drawn in draws]


def split_by_quota(units: Sequence[Unit], fractions: Mapping[str, Fraction], seed: int) -> list[str]:
    """Return each unit's split so that every stratum is divided by the fractions, as nearly as its units allow.

    Units with a `kept` split stay there; the others, in the order of their draws, go where most is lacking.
    """
    found = [unit.kept if unit.kept in fractions else None for unit in units]
    scale = math.lcm(*(fraction.denominator for fraction in fractions.values()))  # whole numbers are exact and fast
    strata: dict[Hashable, list[int]] = defaultdict(list)
    for place, unit in enumerate(units):
        strata[unit.stratum].append(place)
    for stratum in strata.values():
        total = sum(len(units[place].rows) for place in stratum)
        lacking = {name: int(fraction * total * scale) for name, fraction in fractions.items()}
        fresh = []
        for place in stratum:
            if (split := found[place]) is None:
                fresh.append(place)
            else:
                lacking[split] -= scale * len(units[place].rows)
        # Large groups first: what is left evens them out.
        for place in sorted(fresh, key=lambda at: (-len(units[at].rows), draw("split", seed, units[at].name))):
            split = max(lacking, key=lambda name: lacking[name])
            found[place] = split
            lacking[split] -= scale * len(units[place].rows)
    return [str(split) for split in found]


def most_common(values: Sequence[int | None]) -> int | None:
    """Return the value that most have, the smallest of several; None counts as one."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value is None, value or 0))
