"""An ingest of CIFAR from its parameters to its prepared chunks."""

from __future__ import annotations

from collections.abc import Iterator

from labelmill.schemas.parameters import IngestCifarParameters
from labelmill.tasks.cifar.batches import label_images, list_images, name_labels, read_batch, read_classes
from labelmill.tasks.cifar.files import choose_files, find_cifar_files
from labelmill.tasks.ingest.job import IngestRun, prepare_ingest
from labelmill.tasks.ingest.sources import Listing

FLOW = "ingest-cifar"


def prepare_cifar(parameters: IngestCifarParameters) -> Iterator[IngestRun]:
    """Yield a prepared ingest for each split: the next one when the one before is committed.

    Raises BadInput for files that are not whole or not CIFAR's.
    """
    files = find_cifar_files(parameters.source)
    for split, chosen in choose_files(files, parameters.split).items():
        kind = name_labels(chosen, parameters.labels)
        classes = read_classes(files, kind)
        batches = [read_batch(file, kind) for file in chosen]
        listing = Listing(root=chosen[0].root, files=list_images(batches))
        of_split = parameters.model_copy(update={"split": split})
        yield prepare_ingest(FLOW, of_split, listing, label_images(batches, classes))
