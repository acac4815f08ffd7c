"""Say in words what a step does, for the contact sheet."""

from __future__ import annotations

from labelmill.schemas.views import (
    AdjustStep,
    CropStep,
    CutoutStep,
    FlipStep,
    MosaicStep,
    ResizeStep,
    Step,
    ToneStep,
    WarpStep,
)

_UNITS = {"rotate": "°", "translate_x": " px", "translate_y": " px", "posterize": " bits"}


def describe_step(step: Step) -> str:
    """Return a step in a line."""
    match step:
        case CropStep():
            padded = f", padded by {step.reflect}" if step.reflect else ""
            said = f"crop {step.width}×{step.height} at {step.left}, {step.top}{padded}"
        case ResizeStep():
            said = f"resize to {step.width}×{step.height} ({step.filter})"
        case WarpStep() | AdjustStep():
            number = f"{step.amount:.4g}".replace("-", "−")
            said = f"{step.op.replace('_', ' ')} {number}{_UNITS.get(step.op, '')}"
        case FlipStep() | ToneStep():
            said = step.op.replace("_", " ")
        case CutoutStep():
            said = f"cutout {step.width}×{step.height} at {step.left}, {step.top}"
        case MosaicStep():
            names = ", ".join(tile.image_id or "itself" for tile in step.tiles)
            said = f"mosaic {step.width}×{step.height} of {names}"
    return said
