"""The error of an item that cannot be used as an image."""

from __future__ import annotations

from labelmill.schemas.errors import LabelmillError
from labelmill.schemas.images import Reason


class RejectedImage(LabelmillError):
    """An item that cannot be used as an image: `reason` for machines, `detail` for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
