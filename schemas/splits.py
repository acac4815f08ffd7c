"""Tables that say which images belong where: splits, episodes, domains, and the same bytes on both sides."""

from __future__ import annotations

import re
from enum import StrEnum
from fractions import Fraction

import pyarrow as pa

from labelmill.schemas.errors import BadInput

_SPLIT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Role(StrEnum):
    """What an image does in its split or episode."""

    LABELLED = "labelled"
    UNLABELLED = "unlabelled"
    SUPPORT = "support"
    QUERY = "query"


SPLITS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("role", pa.string()),  # labelled or unlabelled, where labels were drawn
        pa.field("label", pa.int32()),
        pa.field("group", pa.string()),  # images of one group are in one split
    ]
)

EPISODES_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),  # no class is in two
        pa.field("episode", pa.int32(), nullable=False),  # from 0 in each split
        pa.field("way", pa.int32(), nullable=False),  # the class's place in the episode
        pa.field("role", pa.string(), nullable=False),  # support or query
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
    ]
)

DOMAINS_SCHEMA = pa.schema(
    [
        pa.field("domain", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),  # in dataset.images
        pa.field("label", pa.int32()),  # id in that dataset's classes
    ]
)

LEAKS_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),  # of a content that is on both sides
        pa.field("table", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
    ]
)


def parse_fractions(text: str) -> dict[str, Fraction]:
    """Return the parts of `train=0.8,val=0.1,test=0.1` as exact fractions; raise BadInput when they do not sum to 1."""
    fractions: dict[str, Fraction] = {}
    for piece in text.split(","):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not equals or not _SPLIT.fullmatch(name) or name in fractions:
            raise BadInput(f"{text!r}: expected distinct names with fractions, such as train=0.8,val=0.2")
        try:
            fractions[name] = Fraction(value)
        except (ValueError, ZeroDivisionError) as error:
            raise BadInput(f"{text!r}: expected a number for {name}, got {value!r}") from error
        if fractions[name] <= 0:
            raise BadInput(f"{text!r}: expected a fraction above 0 for {name}; leave it out instead")
    if (total := sum(fractions.values())) != 1:
        raise BadInput(f"{text!r}: expected fractions that sum to 1, got {float(total):g}")
    return fractions
