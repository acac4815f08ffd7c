"""Parameters of the flows that bring images in together with boxes or with labels of a table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from labelmill.schemas.parameters.fields import LocalPath, Location
from labelmill.schemas.parameters.ingest import IngestSettings


class IngestBoxesParameters(IngestSettings):
    """What every ingest of boxes takes."""

    boxes_per_part: int = Field(
        200_000, ge=1, le=5_000_000, description="boxes in a part; a killed ingest writes only what is missing"
    )


class IngestCocoParameters(IngestBoxesParameters):
    """Ingest a COCO instances file: its images, and its boxes with polygons, masks and whatever else it says."""

    annotations: LocalPath = Field(description="the JSON file, such as instances_train2017.json")
    images: Location = Field(
        description="where the images are: a folder, a tar, a zip, or s3://bucket/prefix; those that are not there "
        "are kept as missing"
    )


class IngestYoloParameters(IngestBoxesParameters):
    """Ingest boxes as YOLO has them: a .txt of `class cx cy w h` for each image."""

    source: LocalPath = Field(
        description="data.yaml, or the folder that holds it; else a folder with images/ and labels/"
    )
    names: LocalPath | None = Field(None, description="a text file with one class name a line, where there is no yaml")


class IngestVocParameters(IngestBoxesParameters):
    """Ingest Pascal VOC: an XML file of boxes for each image."""

    source: LocalPath = Field(description="the folder with Annotations/ and JPEGImages/, such as VOCdevkit/VOC2012")
    image_set: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="only the images of ImageSets/Main/NAME.txt, such as train or trainval; default: all",
    )


class IngestTableParameters(IngestSettings):
    """Ingest images with labels from a table: CSV, TSV or Parquet with a row for each image."""

    table: LocalPath = Field(description="the table: .csv, .tsv or .parquet, with a header")
    images: Location = Field(description="where the images are: a folder, a tar, a zip, or s3://bucket/prefix")
    path_column: str = Field(
        "path", min_length=1, description="column with the image's path below `images`, or its whole path there"
    )
    label_column: str = Field("label", min_length=1, description="column with the class's name")
    labels: Literal["column", "none"] = Field("column", description="none: no labels, and no column for them")
    label_separator: str | None = Field(
        None, min_length=1, description="what stands between several labels of an image, such as |; default: one label"
    )
    delimiter: Literal["auto", "comma", "tab", "semicolon"] = Field(
        "auto", description="what stands between the cells of a text; auto: by the file's name, else by its header"
    )
