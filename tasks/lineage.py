"""What made a version: code, parameters, inputs, software, time and host."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelmill.schemas.parameters import FlowParameters
from labelmill.schemas.versions import Lineage, digest_json

RECORDED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "pyarrow")


def make_lineage(
    flow: str,
    parameters: FlowParameters,
    *,
    inputs: dict[str, int] | None = None,
    teacher: dict[str, Any] | None = None,
) -> Lineage:
    """Build the lineage of a version that a flow is about to commit; `inputs` maps tables to versions."""
    values = parameters.model_dump(mode="json")
    return Lineage(
        code=code_version(),
        flow=flow,
        parameters=values,
        parameters_digest=digest_json(values),
        inputs=inputs or {},
        teacher=teacher,
        software={name: version(name) for name in RECORDED_PACKAGES},
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
    )


@cache
def code_version() -> str:
    """Return labelmill's version, with the commit (and `+changes`) when it runs from a checkout."""
    released = version("labelmill")
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return released
    git = ["git", "-C", str(folder)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no commit yet: the release is all that is known
        return released
    return f"{released} {commit.stdout.strip()}{'+changes' if changes.stdout.strip() else ''}"
