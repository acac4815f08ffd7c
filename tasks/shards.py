"""Stretches of an images version, each the work of a task, and where their images lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import TRANSIENT_REASONS, Reason
from labelmill.schemas.versions import Part, Version
from labelmill.tasks.ingest.sources import is_there
from labelmill.tasks.store.table import Table

RETRIED_REASONS = TRANSIENT_REASONS | {Reason.BROKEN_LINK, Reason.NOT_A_FILE, Reason.CHANGED}
"""Ingest saw these images whole: what is now at their place (an unmounted folder, say) may be put right again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Rows `start` to `stop` of one part of an images version, of one split or of all; `key` says what decides them."""

    number: int
    part: Part
    split: str | None
    start: int
    stop: int
    key: str

    def __len__(self) -> int:
        return self.stop - self.start


def read_split(images: Table, part: Part, split: str | None, columns: Sequence[str]) -> pa.Table:
    """Read columns of an images part, only the rows of `split` when one is named."""
    rows = images.read_part(part, columns)
    return rows if split is None else rows.filter(pc.equal(rows["split"], split))


def check_split(split: str | None, known: Iterable[str], *, field: str = "split") -> None:
    """Raise BadInput when a split is asked for, by the parameter `field`, that is not among those `known`."""
    if split is not None and split not in (splits := sorted(known)):
        raise BadInput(f"{field}: expected one of {', '.join(splits)}, got {split!r}")


def find_roots(version: Version, *, split: str | None, image_root: str | None) -> dict[str, str]:
    """Return the folder or URL of the images of each split that is wanted: as ingested, or `image_root`.

    Raises BadInput for a split that is not in the version, and for one `image_root` of several splits.
    """
    recorded: dict[str, str] = version.metadata["roots"]
    check_split(split, recorded)
    wanted = [split] if split else sorted(recorded)
    if image_root is not None and len(wanted) > 1:
        raise BadInput(f"image_root: the splits {', '.join(wanted)} have a folder each; name one with split")
    return {name: image_root or recorded[name] for name in wanted}


def find_present_roots(version: Version, *, split: str | None, image_root: str | None) -> dict[str, str]:
    """Return what find_roots does; raise BadInput also for a folder that is not there."""
    roots = find_roots(version, split=split, image_root=image_root)
    for name, root in roots.items():
        if not is_there(root):
            raise BadInput(
                f"images of split {name!r}: no such folder: {root}; when they are mounted elsewhere, "
                "say so with image_root"
            )
    return roots
