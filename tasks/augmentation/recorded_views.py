"""Where views come from: drawn by a policy and a seed, or read from a table of records."""

from __future__ import annotations

from typing import Protocol

import pyarrow.compute as pc

from labelmill.schemas.augmentation import Mosaic, Policy
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.images import Status
from labelmill.schemas.views import Step, View, parse_steps
from labelmill.tasks.augmentation.draw_view import draw_steps, draw_view
from labelmill.tasks.augmentation.geometry import Frame, describe_view
from labelmill.tasks.store import Store


class ViewSource(Protocol):
    """Gives the view of an image in an epoch."""

    def view(self, *, epoch: int, image_id: str, size: Frame) -> View:
        """Return the view of an image of `size` (width, height) in pixels."""


class DrawnViews:
    """Views that are drawn when they are asked for."""

    def __init__(self, policy: Policy, *, seed: int = 0) -> None:
        if any(isinstance(operation, Mosaic) for operation in policy.operations):
            raise BadInput(f"policy {policy.name!r}: a mosaic needs other images; write its views by the flow augment")
        self.policy, self.seed, self._digest = policy, seed, policy.digest()

    def view(self, *, epoch: int, image_id: str, size: Frame) -> View:
        """See ViewSource."""
        return draw_view(
            self.policy, seed=self.seed, epoch=epoch, image_id=image_id, size=size, digest=self._digest
        )  # fmt: skip

    def steps(self, *, epoch: int, image_id: str, size: Frame) -> tuple[Step, ...]:
        """Return the steps of that view alone, for those who do not ask which part of the image it shows."""
        return draw_steps(
            self.policy, seed=self.seed, epoch=epoch, image_id=image_id, size=size, digest=self._digest
        )  # fmt: skip


class RecordedViews:
    """Views of a table of records; nothing is drawn."""

    def __init__(self, store: Store, table: str, *, version: int | None = None) -> None:
        """Read the records; raise NotInStore when there are none, BadInput for a table of another kind."""
        found = store.table(table)
        self.version = found.version(version)
        if self.version.metadata.get("kind") != "views":
            raise BadInput(f"{table}: expected a table of views")
        self.policy = Policy.model_validate(self.version.metadata["policy"])
        rows = found.read(self.version, ["image_id", "epoch", "steps", "status"])
        rows = rows.filter(pc.equal(rows["status"], Status.DONE))
        keys = zip(rows["image_id"].to_pylist(), rows["epoch"].to_pylist(), strict=True)
        self._places = {key: place for place, key in enumerate(keys)}
        self._steps = rows["steps"].combine_chunks()

    def __len__(self) -> int:
        return len(self._places)

    def view(self, *, epoch: int, image_id: str, size: Frame) -> View:
        """Return a recorded view; raise NotInStore when there is none, BadInput when it does not fit the size."""
        place = self._places.get((image_id, epoch))
        if place is None:
            raise NotInStore(f"{self.version.table} v{self.version.number}: no view of {image_id!r} in epoch {epoch}")
        return describe_view(parse_steps(self._steps[place].as_py()), size)
