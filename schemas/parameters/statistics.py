"""Parameters of the flow that computes statistics."""

from __future__ import annotations

from pydantic import Field

from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import PIXELS_MAX, FlowParameters, LocalPath, Location


class StatisticsParameters(FlowParameters):
    """Compute a dataset's exact channel means and deviations, and a page on its sizes, classes, formats and rejects."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's images table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    split: str | None = Field(None, description="only this split; default: all")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    image_root: Location | None = Field(
        None, description="folder or URL of the images when they are elsewhere than at ingest"
    )
    workers: int = Field(0, ge=0, le=256, description="threads that read and decode; 0 means one a core")
    shard_size: int = Field(8192, ge=1, le=1_000_000, description="images in a shard; a killed run resumes at a shard")
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="reject images with more pixels than this")
    report: LocalPath | None = Field(
        None, description="file for the page; default: reports/vN.html in the folder of the table"
    )
