"""Two datasets as two unpaired domains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import DomainsParameters
from labelmill.schemas.splits import DOMAINS_SCHEMA, parse_fractions
from labelmill.schemas.versions import Version
from labelmill.tasks.splits.draw import Unit, split_by_threshold
from labelmill.tasks.splits.images import commit_rows, read_images
from labelmill.tasks.splits.split import count_leaks
from labelmill.tasks.store import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Domains:
    """A version of domains; `sizes` counts images by domain and split, `leaks` contents that stand in both domains."""

    version: Version
    sizes: dict[str, int]
    rejected: dict[str, int]
    leaks: int


def write_domains(parameters: DomainsParameters) -> Domains:
    """Write the manifest of two datasets; images of the same bytes in one domain stay in one split.

    Raises BadInput when both domains are the same images, NotInStore when a dataset has none.
    """
    if (parameters.dataset, parameters.from_split) == (parameters.other, parameters.other_split):
        raise BadInput("other: expected another dataset, or another split of it by --other-split")
    store = open_store(parameters.store)
    names = parameters.domains.split(",")
    if names[0] == names[1]:
        raise BadInput(f"domains: expected two names, got {parameters.domains!r}")
    fractions = parse_fractions(parameters.fractions)
    pieces, inputs, metadata, rejected = [], {}, {}, Counter[str]()
    sha256s: list[tuple[str | None, str]] = []
    sides = (
        (parameters.dataset, parameters.from_split, parameters.images_version, "from_split"),
        (parameters.other, parameters.other_split, None, "other_split"),
    )
    for domain, (dataset, split, number, field) in zip(names, sides, strict=True):
        if dataset == parameters.dataset:
            number = parameters.images_version  # noqa: PLW2901 - two splits of one version
        images = read_images(store, dataset, number, split=split, field=field)
        contents = images.column("sha256")
        ids, count = images.column("image_id"), images.rows.num_rows
        # Without digests one image is drawn by its id: all of them by nothing would be one draw.
        units = [
            Unit(name=sha256 or image_id, rows=(), stratum=None) for sha256, image_id in zip(contents, ids, strict=True)
        ]
        splits = split_by_threshold(units, fractions, parameters.seed)
        columns = [[domain] * count, splits, [dataset] * count, ids, images.column("label")]
        pieces.append(pa.table(columns, schema=DOMAINS_SCHEMA))
        inputs[images.name] = images.version.number
        metadata[domain] = {"dataset": dataset, "split": split, "classes": images.version.metadata["classes"]}
        sha256s += [(sha256, domain) for sha256 in contents]
        rejected.update(images.rejected)
    rows = pa.concat_tables(pieces).combine_chunks()
    version = commit_rows(
        store.table(f"{parameters.dataset}.{parameters.table}"), rows,
        metadata={"kind": "domains", "domains": metadata}, flow="domains", parameters=parameters, inputs=inputs,
    )  # fmt: skip
    sizes = Counter(zip(rows["domain"].to_pylist(), rows["split"].to_pylist(), strict=True))
    counts = {f"{domain} {split}": sizes[domain, split] for domain in names for split in fractions}
    return Domains(version=version, sizes=counts, rejected=dict(rejected), leaks=count_leaks(sha256s))
