"""An ingest of SVHN from its parameters to its prepared chunks: the images become files first."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from labelmill.schemas.parameters import IngestSvhnParameters
from labelmill.tasks.images.decode_image import decode_rgb
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.job import IngestRun, prepare_ingest
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import FileKind, ListedFile
from labelmill.tasks.ingest.sources import Listing
from labelmill.tasks.stop import check_stop
from labelmill.tasks.svhn.digits import SVHN_CLASSES, SvhnDigits
from labelmill.tasks.threads import open_threads
from labelmill.tasks.written.file_tree import BadFileName, FileTree, Occupied, WrittenFile

FLOW = "ingest-svhn"

_IMAGES_AT_ONCE = 64
_IMAGES_IN_A_FOLDER = 1000
_PIXELS_MAX = 32 * 32


def write_digits(
    digits: SvhnDigits, split: str, tree: FileTree, *, workers: int = 0, on_batch: Callable[[int, int], None]
) -> list[ListedFile]:
    """Write each picture as PNG, `train/000/000000.png`, unless a file with its pixels is there; return the files.

    `on_batch(written, kept)` is called with the number of files. Raises BadInput when something else is at a file's
    place, WorkFailed when the disk takes no more.
    """

    def work(start: int) -> list[ListedFile]:
        check_stop()
        made = [_write(digits, split, tree, n) for n in range(start, min(start + _IMAGES_AT_ONCE, len(digits)))]
        kept = sum(written.kept for _, written in made)
        on_batch(len(made) - kept, kept)
        return [
            ListedFile(path=path, size=written.bytes, mtime_ns=written.mtime_ns, kind=FileKind.FILE)
            for path, written in made
        ]

    with open_threads(workers or os.cpu_count() or 1, name="export") as threads:
        return [file for files in threads.map(work, range(0, len(digits), _IMAGES_AT_ONCE)) for file in files]


def _write(digits: SvhnDigits, split: str, tree: FileTree, number: int) -> tuple[str, WrittenFile]:
    path = f"{split}/{number // _IMAGES_IN_A_FOLDER:03d}/{number:06d}.png"
    pixels = np.ascontiguousarray(digits.pixels[..., number])
    try:
        found = tree.find(path)
        if found is not None and _has_pixels(os.path.join(tree.root, path), pixels):
            return path, WrittenFile(kept=True, bytes=found.st_size, mtime_ns=found.st_mtime_ns)
        if found is not None:
            raise Occupied(f"{path}: a file with other pixels is there")
        encoded = BytesIO()
        Image.fromarray(pixels).save(encoded, "png")
        return path, tree.write(path, lambda: (encoded.getvalue(),))
    except (Occupied, BadFileName) as error:
        raise tree.explain(error) from error


def _has_pixels(path: str, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bool:
    """Tell whether a file holds these pixels, however another version of the encoder wrote them."""
    try:
        picture = decode_rgb(read_bytes(path, max_bytes=2**20), max_pixels=_PIXELS_MAX)
    except RejectedImage:
        return False
    return np.array_equal(np.asarray(picture), pixels)


def prepare_svhn(parameters: IngestSvhnParameters, files: Sequence[ListedFile], digits: SvhnDigits) -> IngestRun:
    """Find out what is new among the files of one split; raise BadInput when they do not fit the dataset."""
    keys = [None if label < 0 else str(label) for label in digits.labels]
    found = SourceLabels(
        classes=SVHN_CLASSES, keys=keys, required=True, without_label="expected a label from 1 to 10, where 10 means 0"
    )
    return prepare_ingest(FLOW, parameters, Listing(root=parameters.out, files=files), found)
