"""Random numbers of one view: a function of its key alone, so that no order and no number of workers changes them."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from labelmill.schemas.versions import canonical_json

Item = TypeVar("Item")

_AT_ONCE = 32
"""Numbers that are made together: most views need fewer."""

_WORDS_PER_BLOCK = 4

_UNIT = 2.0**-53

_here = threading.local()


def _make_words(key: npt.NDArray[np.uint64], block: int) -> npt.NDArray[np.uint64]:
    """Return the words of a key from a block on; a thread sets one generator anew, a sixth of making one."""
    if not hasattr(_here, "philox"):
        _here.philox = np.random.Philox(0)
        _here.state = _here.philox.state
    _here.state["state"]["key"][:] = key
    _here.state["state"]["counter"][:] = (block, 0, 0, 0)
    _here.philox.state = _here.state
    words: npt.NDArray[np.uint64] = _here.philox.random_raw(_AT_ONCE)
    return words


class Draws:
    """Draws from Philox, a counter-based generator, keyed by a digest of the view's key.

    Only its raw 64-bit words are used, which numpy keeps the same between releases; its distributions it does not.

    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.
    """

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.blake2b(canonical_json(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._key = np.frombuffer(digest, ">u8")[::-1].astype(np.uint64)
        self._block = 0
        self._ready: list[int] = []

    def unit(self) -> float:
        """Return a number of [0, 1)."""
        if not self._ready:
            self._ready = _make_words(self._key, self._block)[::-1].tolist()
            self._block += _AT_ONCE // _WORDS_PER_BLOCK
        return (self._ready.pop() >> 11) * _UNIT

    def between(self, least: float, largest: float) -> float:
        """Return a number between two."""
        return least + (largest - least) * self.unit()

    def below(self, count: int) -> int:
        """Return a whole number of 0 to count − 1."""
        return min(int(self.unit() * count), count - 1)

    def chance(self, p: float) -> bool:
        """Return true with probability p."""
        return self.unit() < p

    def choose(self, items: Sequence[Item]) -> Item:
        """Return one of the items."""
        return items[self.below(len(items))]

    def shuffle(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in a random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest))]

    def log_between(self, least: float, largest: float) -> float:
        """Return a number between two positive ones whose logarithm is drawn evenly."""
        return math.exp(self.between(math.log(least), math.log(largest)))
