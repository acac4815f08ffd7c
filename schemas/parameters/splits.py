"""Parameters of the flows that divide datasets."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from labelmill.schemas.errors import BadInput
from labelmill.schemas.names import DatasetName, split_table_name
from labelmill.schemas.parameters.fields import TABLE_PATTERN, FlowParameters, Location, check_by
from labelmill.schemas.splits import parse_fractions


def _check_pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise BadInput(f"{pattern!r}: no regular expression: {error}") from error
    if groups > 1:
        raise BadInput(f"{pattern!r}: expected at most one pair of brackets around the group's name")
    return pattern


def _parse_tables(text: str) -> list[tuple[str, str]]:
    return [split_table_name(name.strip()) for name in text.split(",")]


Fractions = Annotated[str, check_by(parse_fractions)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
TableNames = Annotated[str, check_by(_parse_tables)]


class DivideParameters(FlowParameters):
    """What every flow takes that draws images of a dataset."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's images table")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    seed: int = Field(0, description="another seed gives another draw")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")


class SplitParameters(DivideParameters):
    """Divide a dataset's images into splits by a hash of seed and image: stratified, grouped, with few labels."""

    fractions: Fractions = Field("train=0.8,val=0.1,test=0.1", description="names and fractions that sum to 1")
    stratify: bool = Field(True, description="the same fractions in every class")
    from_split: str | None = Field(None, description="divide only this split of the images; default: all")
    group_pattern: Pattern | None = Field(
        None,
        min_length=1,
        description="regular expression searched in image_id; images where it, or what is in its brackets, finds the "
        "same text stay together",
    )
    group_column: str | None = Field(
        None, description="column of the images table; images with one value stay together"
    )
    same_bytes_together: bool = Field(True, description="images of the same content stay together")
    labels_per_class: int | None = Field(
        None, ge=1, description="mark so many images a class of the first split as labelled, its others as unlabelled"
    )
    table: str = Field("splits", pattern=TABLE_PATTERN, description="name of the table in the dataset")


class EpisodesParameters(DivideParameters):
    """Draw N-way K-shot episodes on splits that share no class, each with a support and a query set."""

    fractions: Fractions = Field("train=0.64,val=0.16,test=0.2", description="of the classes; they sum to 1")
    from_split: str | None = Field(None, description="draw only from this split of the images; default: all")
    ways: int = Field(5, ge=2, le=1000, description="classes in an episode")
    shots: int = Field(1, ge=1, le=1000, description="support images a class")
    queries: int = Field(15, ge=1, le=1000, description="query images a class")
    episodes: int = Field(600, ge=1, le=100_000, description="episodes in each split")
    table: str = Field("episodes", pattern=TABLE_PATTERN, description="name of the table in the dataset")


class DomainsParameters(DivideParameters):
    """Write a manifest of two datasets as two unpaired domains, such as source and target."""

    other: DatasetName = Field(description="dataset of the second domain")
    domains: str = Field(
        "source,target", pattern=r"^\w{1,32},\w{1,32}$", description="names of the two domains, such as A,B"
    )
    from_split: str | None = Field(None, description="of the first dataset's images; default: all")
    other_split: str | None = Field(None, description="of the second dataset's images; default: all")
    fractions: Fractions = Field("train=0.9,test=0.1", description="splits of each domain; they sum to 1")
    table: str = Field("domains", pattern=TABLE_PATTERN, description="name of the table in the first dataset")


class FindLeaksParameters(FlowParameters):
    """Find images of the same bytes that stand in more than one split, also of several tables."""

    store: Location = Field(description="folder or URL of the store")
    tables: TableNames = Field(
        description="dataset.table, or several with commas between: tables of images, splits or domains"
    )
    table: str = Field(
        "leaks", pattern=TABLE_PATTERN, description="name of the table that is made in the first one's dataset"
    )
