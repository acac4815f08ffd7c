"""The statistics table: for each shard, split and label the histograms of all pixels, which any reader can add up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa

CHANNELS = ("red", "green", "blue")

_COUNTS = pa.list_(pa.field("element", pa.int64()))

STATISTICS_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int32()),  # null for images without one
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # why these images are not in the histograms
        pa.field("images", pa.int64(), nullable=False),
        pa.field("pixels", pa.int64(), nullable=False),
        *(pa.field(channel, _COUNTS) for channel in CHANNELS),  # 256 counts of pixels by value, null where rejected
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatistics:
    """Mean and deviation of a channel over all pixels, in [0, 1] as ToTensor scales them."""

    channel: str
    pixels: int
    mean: float
    deviation: float


def describe_channel(channel: str, counts: list[int]) -> ChannelStatistics:
    """Return the statistics of 256 counts by value, computed in whole numbers to the last division.

    The deviation is that of the population. Without pixels both are NaN.
    """
    pixels = sum(counts)
    if not pixels:
        return ChannelStatistics(channel=channel, pixels=0, mean=math.nan, deviation=math.nan)
    total = sum(value * count for value, count in enumerate(counts))
    squares = sum(value * value * count for value, count in enumerate(counts))
    variance = (pixels * squares - total * total) / (pixels * pixels)
    return ChannelStatistics(
        channel=channel, pixels=pixels, mean=total / pixels / 255, deviation=math.sqrt(variance) / 255
    )
