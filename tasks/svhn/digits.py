"""Read SVHN's MATLAB files: pictures of 32x32 pixels and the digit in the middle of each."""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.io
from scipy.io.matlab import MatReadError

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput

SVHN_CLASSES = ClassList(classes=tuple(ClassName(name=str(digit)) for digit in range(10)), source="SVHN digits")

_NAME = re.compile(r"(train|test|extra)_32x32\.mat")
_SIDE_PX = 32
_IMAGES_MAX = 2_000_000
"""Four times what extra_32x32.mat holds; it takes 6 GB in memory."""

_MAT_FAILURES = (
    OSError, ValueError, TypeError, LookupError, NotImplementedError, MemoryError, MatReadError, struct.error,
    zlib.error,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SvhnDigits:
    """A file's pictures (32, 32, 3, N) uint8 and their labels (N,), 0 to 9, -1 where the file has none of these."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def find_svhn_files(source: str, split: str) -> dict[str, str]:
    """Return the path of each split's file: of `source` itself or those in it; of one split unless it is "auto".

    Raises BadInput when there is none.
    """
    try:
        paths = [source] if os.path.isfile(source) else [os.path.join(source, name) for name in os.listdir(source)]
    except OSError as error:
        raise BadInput(f"source: {source}: {error.strerror}; expected train_32x32.mat or a folder with it") from error
    files = {match[1]: path for path in sorted(paths) if (match := _NAME.fullmatch(os.path.basename(path)))}
    wanted = files if split == "auto" else {name: path for name, path in files.items() if name == split}
    if not wanted:
        raise BadInput(
            f"source: {source}: expected {'train' if split == 'auto' else split}_32x32.mat, the cropped digits of SVHN "
            "(its full numbers are another format)"
        )
    return wanted


def read_digits(path: str) -> SvhnDigits:
    """Read a file whole, 3 kB of memory an image; raise BadInput when it is not what it should be."""
    try:
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        pictures, labels = shapes.get("X"), shapes.get("y")
        if pictures is None or labels is None or pictures[:3] != (_SIDE_PX, _SIDE_PX, 3) or len(pictures) != 4:
            raise BadInput(f"{path}: expected X of 32x32x3xN and y of N labels, got {shapes}")
        if labels[0] != pictures[3] or pictures[3] > _IMAGES_MAX:
            raise BadInput(
                f"{path}: expected as many labels as images, up to {_IMAGES_MAX}, got X {pictures}, y {labels}"
            )
        found = scipy.io.loadmat(path, variable_names=["X", "y"])
        pixels, numbers = found["X"], found["y"].reshape(-1).astype(np.int64)
    except BadInput:
        raise
    except _MAT_FAILURES as error:
        raise BadInput(f"{path}: not a MATLAB file that can be read: {str(error)[:100]!r}") from error
    if pixels.dtype != np.uint8 or len(numbers) != pixels.shape[3]:
        raise BadInput(f"{path}: expected X of uint8 and a label for each image, got {pixels.dtype}, {len(numbers)}")
    numbers[numbers == 10] = 0  # MATLAB counts from 1
    numbers[(numbers < 0) | (numbers > 9)] = -1
    return SvhnDigits(pixels=pixels, labels=numbers)
