"""Parameters of the flows that choose among pseudo labels and review labels by them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import FlowParameters, LocalPath, Location
from labelmill.schemas.selection import parse_thresholds

_TABLE = r"^[a-z][a-z0-9_]{0,62}$"


def _check_thresholds(text: str) -> str:
    parse_thresholds(text)
    return text


class ChooseParameters(FlowParameters):
    """What every flow takes that reads pseudo labels."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's pseudo labels")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    labels_table: str = Field("pseudo_labels", pattern=_TABLE, description="name of the table of pseudo labels")
    labels_version: int | None = Field(None, ge=1, description="its version; default: the latest")
    split: str | None = Field(None, description="images of this split alone; default: all")


class SelectParameters(ChooseParameters):
    """Choose what a trainer is to learn from among stored pseudo labels: a manifest, without running a teacher."""

    threshold: float = Field(0.8, ge=0, le=1, description="least confidence, of the stored, unsharpened probability")
    quota: int | None = Field(
        None, ge=1, description="images a class: the most confident ones, and fewer are filled up by copies"
    )
    duplicate: bool = Field(True, description="with a quota: repeat images of classes with fewer, evenly, up to it")
    relevance_from: str | None = Field(
        None,
        pattern=_TABLE,
        description="table of pseudo labels by a model of the labelled set, which says how relevant an image is; "
        "default: the one that is chosen from",
    )
    relevance_version: int | None = Field(None, ge=1, description="version of that table; default: the latest")
    relevant_per_class: int | None = Field(
        None, ge=1, description="before the threshold: keep the so many most confident images of each class"
    )
    relevant_share: float | None = Field(
        None, gt=0, le=1, description="before the threshold: keep this share of each class, the most confident"
    )
    targets: Literal["hard", "soft"] = Field(
        "soft", description="soft: the stored classes, sharpened and made to sum to one; hard: the likeliest class"
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="of soft targets: probabilities to the power 1/temperature; below 1 sharpens",
    )
    table: str = Field("manifest", pattern=_TABLE, description="name of the table that is made")


class PseudoReportParameters(ChooseParameters):
    """Tell what each threshold would yield: images, balance of the classes, precision where labels are known."""

    thresholds: Annotated[str, AfterValidator(_check_thresholds)] = Field(
        "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,0.99", description="confidences with commas between"
    )
    table: str = Field("pseudo_label_report", pattern=_TABLE, description="name of the table that is made")
    report: LocalPath | None = Field(
        None, description="file for the page; default: reports/vN.html in the folder of the table"
    )


class DisagreementsParameters(ChooseParameters):
    """List images whose label a teacher confidently contradicts, for people to judge: a table, a page and a CSV."""

    threshold: float = Field(0.8, ge=0, le=1, description="least confidence in the contradicting class")
    images_version: int | None = Field(
        None, ge=1, description="version of the images table whose labels are doubted; default: the latest"
    )
    limit: int | None = Field(None, ge=1, description="only so many, the surest; default: all")
    again: bool = Field(False, description="also images whose label people have kept")
    shown: int = Field(100, ge=0, le=5000, description="images with their picture on the page")
    image_root: Location | None = Field(
        None, description="folder or URL of the images when they are elsewhere than at ingest"
    )
    table: str = Field("disagreements", pattern=_TABLE, description="name of the table that is made")
    report: LocalPath | None = Field(
        None, description="file for the page, with the CSV beside it; default: reports/ in the folder of the table"
    )


class VerdictsParameters(FlowParameters):
    """Take back what people decided about images, line by line: a new version of the images table."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's images table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    csv: LocalPath = Field(
        description="the CSV of disagreements with its column verdict filled in: keep, suggested, drop, or a class"
    )
