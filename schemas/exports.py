"""What an export leaves out, for machines."""

from __future__ import annotations

from enum import StrEnum


class LeftOut(StrEnum):
    """Reasons of images and boxes that a format cannot hold, besides those of rejected images."""

    NO_LABEL = "no_label"
    SEVERAL_LABELS = "several_labels"
    CROWD = "crowd"
    INVALID_BOX = "invalid_box"
    BOX_OF_NO_IMAGE = "box_of_no_image"
