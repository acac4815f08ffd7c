"""An ingest of LSUN from its parameters to its prepared rows, in steps that a flow calls in turn."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.ingest.job import IngestRun, prepare_ingest
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.ingest.manifest import ManifestRun, make_rows, prepare_manifest, read_classes
from labelmill.tasks.ingest.plan import settle_labels
from labelmill.tasks.ingest.sources import Listing
from labelmill.tasks.lsun.environments import LSUN_CLASSES, LsunEnvironment, folder_of
from labelmill.tasks.lsun.listing import label_values, list_values
from labelmill.tasks.lsun.manifest import list_rows

FLOW = "ingest-lsun"


def prepare_lsun(
    parameters: IngestLsunParameters,
    environments: Sequence[LsunEnvironment],
    exported: Sequence[ListedFile] | None = None,
) -> IngestRun | ManifestRun:
    """Find out what is new in the environments of one split, or among the files that were exported from them.

    Raises BadInput for an environment that is not LSUN's.
    """
    root = folder_of(environments) if parameters.out is None else parameters.out
    if parameters.digests == "sha256":
        listing = list_values(environments) if exported is None else Listing(root=root, files=exported)
        return prepare_ingest(FLOW, parameters, listing, label_values(environments, listing.files))
    categories = [environment.category for environment in environments]
    found = SourceLabels(classes=LSUN_CLASSES, keys=categories, required=False)
    classes, labels = settle_labels(found, read_classes(parameters), owner=f"dataset {parameters.dataset}")
    if exported is None:
        rows = pa.concat_tables(list_rows(environments, labels, parameters))
    else:
        label_of = {environment.name: label for environment, label in zip(environments, labels, strict=True)}
        rows = make_rows(exported, [label_of[file.path.partition("/")[0]] for file in exported], parameters)
    return prepare_manifest(FLOW, parameters, root, rows.select(IMAGES_SCHEMA.names), classes)
