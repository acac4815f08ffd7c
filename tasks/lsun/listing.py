"""List the values of LSUN's environments as files with labels, for an ingest that reads each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from labelmill.schemas.members import LmdbValue, name_member
from labelmill.tasks.containers.lmdb_values import list_lmdb
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import FileKind, ListedFile
from labelmill.tasks.ingest.sources import Listing
from labelmill.tasks.lsun.environments import (
    LSUN_CLASSES,
    STRANGE_KEY,
    LsunEnvironment,
    folder_of,
    is_lsun_key,
    refuse_keys,
)


def list_values(environments: Sequence[LsunEnvironment]) -> Listing:
    """Return every value as a member of its environment, in the order of environments and keys.

    Its path, which becomes the image_id, is the environment's name and the key. Raises BadInput for an environment
    without keys of LSUN's form.
    """
    files = [file for environment in environments for file in _list(environment)]
    return Listing(root=folder_of(environments), files=files)


def _list(environment: LsunEnvironment) -> Iterator[ListedFile]:
    keys, strange = 0, []
    for key, size in list_lmdb(environment.path):
        keys += 1
        if not is_lsun_key(key):
            strange.append(key)
        yield make_entry(environment, key, size)
    refuse_keys(environment, keys, strange)


def make_entry(environment: LsunEnvironment, key: bytes, size: int) -> ListedFile:
    """Return the entry of a value; one under a key that is not LSUN's is rejected."""
    good = is_lsun_key(key)
    return ListedFile(
        path=f"{environment.name}/{key.decode() if good else os.fsdecode(key)}",
        size=size,
        mtime_ns=environment.state.mtime_ns,
        kind=FileKind.FILE,
        member_uri=name_member(environment.name, LmdbValue(key=key)),
        rejected=None if good else STRANGE_KEY,
    )


def label_values(environments: Sequence[LsunEnvironment], files: Sequence[ListedFile]) -> SourceLabels:
    """Label each file by the category of the environment that its path begins with; the classes are LSUN's ten."""
    categories = {environment.name: environment.category for environment in environments}
    keys = [categories[file.path.partition("/")[0]] for file in files]
    return SourceLabels(classes=LSUN_CLASSES, keys=keys, required=False)
