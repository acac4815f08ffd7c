"""Keep gc and writers apart on an object store, which has no locks: each shows itself, then looks for the other.

A writer puts a claim that names files, then waits until no gc is at work. A gc puts its flag, then reads the claims and
spares what they name. Since listings show all that was put before, one of the two sees the other. Who was killed is
ignored after a lease, measured by the store's own clock.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.versions import canonical_json
from labelmill.tasks.objects.client import delete_object, find_object, get_object, in_parallel, list_objects, put_object
from labelmill.tasks.store.place import FileFacts

logger = logging.getLogger(__name__)

FOLDER = "locks"

GC_LEASE_S = 600.0
"""After so long a gc that has not shown itself again is taken for dead: writers go on."""

GC_WORK_S = 300.0
"""A gc begins no removal later than this after it showed itself; with DELETE_TIMEOUT_S well below its lease."""

GC_RENEW_S = 60.0

DELETE_TIMEOUT_S = 120.0

CLAIM_LEASE_S = 3600.0
"""After so long a claim is taken for that of a killed writer. A claim covers three requests of ten minutes at most."""

WAIT_MAX_S = 1800.0
WAIT_STEP_S = 1.0

REMOVED_AT_ONCE = 256


@contextmanager
def hold_claim(url: str, paths: Sequence[str]) -> Iterator[None]:
    """Claim files of the table at `url` once no gc is at work; raise WorkFailed when that takes half an hour."""
    claim = f"{FOLDER}/claim-{uuid.uuid4().hex}.json"
    data = canonical_json(sorted(paths)).encode()
    given_up = time.monotonic() + WAIT_MAX_S
    try:
        while True:
            put_object(f"{url}/{claim}", data)  # again at each turn: it stays young
            changed = {found.path: found.changed_ns / 1e9 for found in list_objects(url, prefix=f"{FOLDER}/")}
            now = changed.get(claim, 0.0)
            flags = [at for path, at in changed.items() if path.startswith(f"{FOLDER}/gc-")]
            if claim in changed and all(now - at >= GC_LEASE_S for at in flags):
                break
            if time.monotonic() > given_up:
                raise WorkFailed(f"{url}: a gc has been at work for {WAIT_MAX_S / 60:.0f} minutes; run again after it")
            time.sleep(WAIT_STEP_S)
        yield
    finally:
        _take_away(f"{url}/{claim}")


def _take_away(url: str) -> None:
    """Remove a lock's object; when that fails the work under it is done all the same, and gc removes it one day."""
    try:
        delete_object(url)
    except (WorkFailed, OSError) as error:
        logger.warning("%s is left behind: %s", url, error)


class ObjectSweep:
    """A gc at work; see Sweep. It ends by WorkFailed rather than remove anything when writers may take it for dead."""

    def __init__(self, url: str) -> None:
        """Show the gc and read the claims."""
        self._url = url
        self._flag = f"{url}/{FOLDER}/gc-{uuid.uuid4().hex}"
        self._show()
        try:
            shown = find_object(self._flag)
            if shown is None:
                raise WorkFailed(f"{self._flag}: gone; another gc took this one for dead, run again")
            self.now = shown.changed_ns / 1e9
            self.claimed = self._read_claims()
        except BaseException:
            self.end()
            raise

    def _show(self) -> None:
        begun = time.monotonic()
        put_object(self._flag, b"")
        self._shown = begun

    def _read_claims(self) -> frozenset[str]:
        alive = [
            found.path
            for found in list_objects(self._url, prefix=f"{FOLDER}/claim-")
            if self.now - found.changed_ns / 1e9 < CLAIM_LEASE_S
        ]
        return frozenset(path for paths in in_parallel(self._read_claim, alive) for path in paths)

    def _read_claim(self, path: str) -> list[str]:
        try:
            return list(json.loads(get_object(f"{self._url}/{path}")))
        except FileNotFoundError:  # its writer is done, and what it referred to is seen from here on
            return []

    def leftovers(self) -> list[FileFacts]:
        """See Sweep: claims and flags whose lease is long over."""
        found = [
            FileFacts(path=facts.path, size=facts.size, changed=facts.changed_ns / 1e9)
            for facts in list_objects(self._url, prefix=f"{FOLDER}/")
        ]
        return [facts for facts in found if self.now - facts.changed >= CLAIM_LEASE_S]

    def remove(self, paths: Sequence[str]) -> None:
        """See Sweep; in this order by groups."""
        for start in range(0, len(paths), REMOVED_AT_ONCE):
            if time.monotonic() - self._shown > GC_RENEW_S:
                self._check_lease()
                self._show()
            in_parallel(self._remove, paths[start : start + REMOVED_AT_ONCE])

    def _remove(self, path: str) -> None:
        self._check_lease()
        delete_object(f"{self._url}/{path}", timeout_s=DELETE_TIMEOUT_S)

    def _check_lease(self) -> None:
        if time.monotonic() - self._shown > GC_WORK_S:
            raise WorkFailed(f"{self._url}: gc was stopped for more than {GC_WORK_S / 60:.0f} minutes; run it again")

    def end(self) -> None:
        """Let writers go on."""
        _take_away(self._flag)


@contextmanager
def hold_sweep(url: str) -> Iterator[ObjectSweep]:
    """Show a gc at the table at `url` until the end of the block."""
    sweep = ObjectSweep(url)
    try:
        yield sweep
    finally:
        sweep.end()
