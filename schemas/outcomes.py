"""What a flow returns: counts as data, which the command line and Prefect show in their own ways."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Outcome(BaseModel):
    """What a flow made of its input. `rejected` counts images by reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    table: str | None = Field(description="None for work that makes files and no table")
    version: int | None = Field(None, description="None while other shares of the run are to be done")
    counted: str = Field("images", description="what the counts are of")
    images: int = Field(description="rows of the version, of the split for an ingest, of the share without a version")
    done: int
    rejected: dict[str, int]
    seconds: float
    worked: int = Field(description="images on which this run worked; the others were done before")
    facts: dict[str, str] = Field(default={}, description="further lines for people")
    verdict: str | None = Field(None, description="a last line for scripts, such as accuracy: 0.9130")

    @property
    def images_per_s(self) -> float:
        """Images on which this run worked, a second."""
        return self.worked / self.seconds if self.seconds > 0 else 0.0
