"""Find the same bytes on both sides of a split."""

from __future__ import annotations

from dataclasses import dataclass

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import FindLeaksParameters
from labelmill.schemas.splits import LEAKS_SCHEMA
from labelmill.schemas.versions import Version
from labelmill.tasks.splits.images import commit_rows
from labelmill.tasks.store import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """A version of leaks: `contents` that stand on several sides, counted by the sides they join; `rows` looked at.

    `unknown` are images without digest, which nothing was compared of.
    """

    version: Version
    rows: int
    unknown: int
    contents: int
    sides: dict[str, int]


def find_leaks(parameters: FindLeaksParameters) -> Leaks:
    """Compare the sha256 of all images of some tables; a side is a table's split, or a domain's split.

    Raises BadInput for a table that has no images, NotInStore for one that is not there.
    """
    store = open_store(parameters.store)
    names = list(dict.fromkeys(name.strip() for name in parameters.tables.split(",")))
    inputs: dict[str, int] = {}
    sides = " UNION ALL ".join(_select_side(store, name, inputs) for name in names)
    leaks = (
        f"WITH s AS (SELECT * FROM ({sides}) WHERE sha256 IS NOT NULL), "
        "m AS (SELECT sha256 FROM s GROUP BY sha256 HAVING count(DISTINCT (tbl, split)) > 1)"
    )
    with store.connect() as sql:
        rows, known = sql.execute(f"SELECT count(*), count(sha256) FROM ({sides})").fetchall()[0]
        query = f'{leaks} SELECT sha256, tbl AS "table", split, image_id FROM s SEMI JOIN m USING (sha256) ORDER BY ALL'
        found = sql.execute(query).fetch_arrow_table().cast(LEAKS_SCHEMA).combine_chunks()
        pairs = sql.execute(
            f"{leaks}, j AS (SELECT string_agg(DISTINCT tbl || ' ' || split, ' and ' ORDER BY tbl || ' ' || split) AS "
            "sides FROM s SEMI JOIN m USING (sha256) GROUP BY sha256) "
            "SELECT sides, count(*) FROM j GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    version = commit_rows(
        store.table(f"{names[0].partition('.')[0]}.{parameters.table}"), found,
        metadata={"kind": "leaks", "tables": names}, flow="find-leaks", parameters=parameters, inputs=inputs,
    )  # fmt: skip
    counts = {str(sides): int(count) for sides, count in pairs}
    unknown = int(rows) - int(known)
    return Leaks(version=version, rows=int(rows), unknown=unknown, contents=sum(counts.values()), sides=counts)


def _select_side(store: Store, name: str, inputs: dict[str, int]) -> str:
    """Return the SQL that gives a table's images with their sha256; note the versions that it reads."""
    version = store.table(name).version()
    inputs[name] = version.number
    dataset, _, table = name.partition(".")
    columns = {column.name for column in version.columns}
    view = f'"{dataset}"."{table}_v{version.number}"'
    literal = f"'{name}' AS tbl"
    if "sha256" in columns and "split" in columns:
        whole = "sha256 IS NOT NULL OR status = 'done'" if "status" in columns else "TRUE"
        return f"SELECT {literal}, split, image_id, sha256 FROM {view} WHERE {whole}"
    if not {"image_id", "split"} <= columns:
        raise BadInput(f"tables: {name} has no image_id and split; expected a table of images, splits or domains")
    if "domain" not in columns:
        return _join_images(store, view, literal, "t.split", dataset, "TRUE", version, inputs)
    datasets = [side["dataset"] for side in version.metadata["domains"].values()]
    return " UNION ALL ".join(
        _join_images(store, view, literal, "t.domain", other, f"t.dataset = '{other}'", version, inputs)
        for other in dict.fromkeys(datasets)
    )


def _join_images(
    store: Store, view: str, literal: str, side: str, dataset: str, where: str, version: Version, inputs: dict[str, int]
) -> str:
    images = f"{dataset}.images"
    number = version.lineage.inputs.get(images) or store.table(images).version().number
    inputs[images] = number
    return (
        f"SELECT {literal}, {side} AS split, t.image_id, i.sha256 FROM {view} AS t "
        f'JOIN "{dataset}"."images_v{number}" AS i USING (image_id) WHERE {where}'
    )
