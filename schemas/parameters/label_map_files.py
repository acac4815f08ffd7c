"""Parameters of the flows that read and write the .pt files of ReLabel's authors."""

from __future__ import annotations

from pydantic import Field

from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import FlowParameters, InputSize, LocalPath, Location, TableName


class ImportLabelMapsParameters(FlowParameters):
    """Import the label maps of ReLabel's authors: a .pt file for each image, in a tree that mirrors the images."""

    source: LocalPath = Field(description="folder of the .pt files: n01440764/n01440764_10026.pt for the image's .JPEG")
    store: Location = Field(description="folder or URL of the store that holds the dataset's images table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    teacher: str = Field(
        min_length=1, description="what made the maps, for the lineage; for example efficientnet-l2-ns-475"
    )
    classes: str = Field(
        "auto",
        min_length=1,
        description="what the class ids mean: auto (ImageNet for 1000 classes), imagenet-1k, none, or a text file with "
        "one class a line, in order: a wnid, a name, or wnid<tab>name",
    )
    num_classes: int = Field(1000, ge=1, le=1_000_000, description="outputs of the teacher; ids are 0 to one less")
    split: str | None = Field(None, description="import only this split; default: all")
    transposed: bool = Field(False, description="the files have x before y; see docs/import-export.md")
    scores_are_logits: bool = Field(False, description="take scores for logits that look like probabilities")
    input_size: InputSize = Field(475, description="pixels, or height x width, to which the teacher's images were put")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    shard_size: int = Field(2048, ge=1, le=100_000, description="images in a shard; a killed run resumes at a shard")
    workers: int = Field(0, ge=0, le=256, description="threads that read files; 0 means one a core")


class ExportLabelMapsParameters(FlowParameters):
    """Export label maps in the layout of ReLabel's authors: a .pt file for each image, in the tree of the images."""

    store: Location = Field(description="folder or URL of the store that holds the table")
    table: TableName = Field(description="dataset.table of label maps, such as imagenet.label_maps")
    out: LocalPath = Field(description="folder for the .pt files; made when it does not exist")
    version: int | None = Field(None, ge=1, description="version of the table; default: the latest")
    split: str | None = Field(None, description="export only this split; default: all")
    transposed: bool = Field(False, description="write x before y; see docs/import-export.md")
    replace: bool = Field(False, description="replace files that are there with another content")
    workers: int = Field(0, ge=0, le=256, description="threads that write files; 0 means one a core")
