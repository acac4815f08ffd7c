"""Parameters of the demo."""

from __future__ import annotations

from pydantic import Field

from labelmill.schemas.parameters.fields import FlowParameters, LocalPath


class DemoParameters(FlowParameters):
    """Build a small dataset of real photos, relabel it and show what a label map tells."""

    out: LocalPath = Field("demo", description="folder for the photos, the store and the page")
