"""In which order images are taken: a function of a seed and a place, so that any step can be made anew."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from labelmill.schemas.versions import canonical_json

Places = npt.NDArray[np.int64]


def hash_seed(*names: str | int) -> int:
    """Return 63 bits that names and numbers decide."""
    digest = hashlib.blake2b(canonical_json(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class ShuffledOrder:
    """Endless epochs of `count` images, each in an order of its own."""

    def __init__(self, count: int, *, seed: int, name: str) -> None:
        self.count, self._seed, self._name = count, seed, name
        self._known: dict[int, Places] = {}

    def at(self, start: int, stop: int) -> tuple[Places, Places]:
        """Return the places and the epochs of the images `start` to `stop` of all epochs."""
        numbers = np.arange(start, stop)
        epochs, offsets = np.divmod(numbers, self.count)
        places = np.empty_like(numbers)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            places[here] = self._shuffle(int(epoch))[offsets[here]]
        return places, epochs

    def _shuffle(self, epoch: int) -> Places:
        if epoch in self._known:
            return self._known[epoch]
        # The raw words of a counter-based generator stay the same between numpy's releases, its shuffles may not.
        words = np.random.Philox(key=hash_seed(self._name, self._seed, epoch)).random_raw(self.count)
        last = {number: known for number, known in self._known.items() if number == epoch - 1}
        self._known = {**last, epoch: np.argsort(words, kind="stable")}
        return self._known[epoch]
