"""An ingest of LSUN from its parameters to its prepared rows, in steps that a flow calls in turn."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.ingest.job import IngestRun, prepare_ingest
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.ingest.manifest import ManifestRun, find_classes, make_rows, prepare_manifest
from labelmill.tasks.ingest.plan import settle_labels
from labelmill.tasks.ingest.sources import Listing
from labelmill.tasks.lsun.environments import LSUN_CLASSES, LsunEnvironment, folder_of
from labelmill.tasks.lsun.listing import label_values, list_values
from labelmill.tasks.lsun.manifest import list_rows
from labelmill.tasks.store import open_store

FLOW = "ingest-lsun"


def prepare_lsun(
    parameters: IngestLsunParameters,
    environments: Sequence[LsunEnvironment],
    exported: Sequence[ListedFile] | None = None,
) -> IngestRun | ManifestRun:
    """Find out what is new in the environments of one split, or among the files that were exported from them.

    Raises BadInput for an environment that is not LSUN's.
    """
    _refuse_forgotten(parameters, environments)
    root = folder_of(environments) if parameters.out is None else parameters.out
    if parameters.digests == "sha256":
        listing = list_values(environments) if exported is None else Listing(root=root, files=exported)
        return prepare_ingest(FLOW, parameters, listing, label_values(environments, listing.files))
    if open_store(parameters.store, create=True).table(f"{parameters.dataset}.verdicts").latest() is not None:
        raise BadInput(
            f"digests: people gave verdicts on images of dataset {parameters.dataset}, which a listing without digests "
            "would take back; ingest with --digests sha256"
        )
    categories = [environment.category for environment in environments]
    found = SourceLabels(classes=LSUN_CLASSES, keys=categories, required=False)
    classes, labels = settle_labels(found, find_classes(parameters), owner=f"dataset {parameters.dataset}")
    if exported is None:
        rows = pa.concat_tables(list_rows(environments, labels, parameters))
    else:
        label_of = {environment.name: label for environment, label in zip(environments, labels, strict=True)}
        rows = make_rows(exported, [label_of[file.path.partition("/")[0]] for file in exported], parameters)
    return prepare_manifest(FLOW, parameters, root, rows.select(IMAGES_SCHEMA.names), classes)


def _refuse_forgotten(parameters: IngestLsunParameters, environments: Sequence[LsunEnvironment]) -> None:
    """Raise BadInput when the source is one environment and the split has images of others: they would be removed."""
    table = open_store(parameters.store, create=True).table(f"{parameters.dataset}.images")
    latest = table.latest()
    if latest is None or [environment.path for environment in environments] != [parameters.source]:
        return
    rows = table.read(latest, ["image_id", "split"])
    older = rows.filter(pc.equal(rows["split"], parameters.split))["image_id"]
    others = older.filter(pc.invert(pc.starts_with(older, f"{parameters.id_prefix}{environments[0].name}/")))
    if len(others):
        raise BadInput(
            f"source: split {parameters.split!r} of dataset {parameters.dataset} also holds {len(others):,} images of "
            f"other environments, for example {others[0]}, which would be removed; give the folder that holds all "
            "environments of the split, or another --split or --dataset"
        )
