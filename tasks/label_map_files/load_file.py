"""Load the tensor of a map file, without running any code that it may hold."""

from __future__ import annotations

import os
import pickle
import zipfile
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from labelmill.models.label_map_tensor import BadMap, check_tensor
from labelmill.schemas.images import Reason
from labelmill.schemas.label_maps import MapReason
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.list_files import KIND_REASONS, FileKind, ListedFile
from labelmill.tasks.no_warnings import no_warnings

MAP_FILE_BYTES_MAX = 64 * 2**20
"""A map takes 10 kB; one that was saved as a slice of its batch brings the batch along."""


def load_listed_file(root: Path, listed: ListedFile) -> Tensor:
    """Return the tensor [2, k, A, B] of a file that is still as it was listed; raise BadMap otherwise."""
    if listed.kind is not FileKind.FILE:
        raise BadMap(*KIND_REASONS[listed.kind])
    if (listed.size or 0) > MAP_FILE_BYTES_MAX:
        raise BadMap(Reason.TOO_MANY_BYTES, f"{listed.size} bytes, expected at most {MAP_FILE_BYTES_MAX}")
    path = root / listed.path
    try:
        data = read_bytes(path, max_bytes=MAP_FILE_BYTES_MAX)
        found = os.stat(path)
    except RejectedImage as rejected:
        if rejected.reason is Reason.UNREADABLE:
            raise BadMap(rejected.reason, rejected.detail) from rejected
        raise BadMap(Reason.CHANGED, f"since the folder was listed: {rejected.detail}") from rejected
    except OSError as error:
        raise BadMap(Reason.CHANGED, f"since the folder was listed: {error.strerror}") from error
    if (len(data), found.st_mtime_ns) != (listed.size, listed.mtime_ns):
        raise BadMap(Reason.CHANGED, "written since the folder was listed; run again")
    return load_tensor(data)


def load_tensor(data: bytes) -> Tensor:
    """Return the tensor [2, k, A, B] in the content of a .pt file; raise BadMap when it holds anything else."""
    if not data:
        raise BadMap(Reason.EMPTY, "the file has no bytes")
    is_zip = data.startswith(b"PK")
    if not is_zip and not data.startswith(b"\x80"):
        raise BadMap(MapReason.NOT_A_LABEL_MAP, f"expected a PyTorch file, it starts with {data[:12]!r}")
    try:
        if is_zip:
            _check_archive(data)
        with no_warnings():
            content = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except BadMap:
        raise
    except pickle.UnpicklingError as error:
        raise BadMap(
            MapReason.NOT_A_LABEL_MAP, "expected a tensor alone, as torch.save writes it; other objects are not loaded"
        ) from error
    except Exception as error:
        # the readers of damaged archives and pickles raise whatever their garbage spells: there is no closed list
        raise BadMap(Reason.CORRUPT, f"a damaged PyTorch file ({type(error).__name__})") from error
    return check_tensor(content)


def _check_archive(data: bytes) -> None:
    """Raise BadMap when an archive would unpack to far more than a map, or its checksums, which torch ignores, fail."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAP_FILE_BYTES_MAX:
            raise BadMap(Reason.TOO_MANY_BYTES, f"{unpacked} bytes unpacked, expected at most {MAP_FILE_BYTES_MAX}")
        if (damaged := archive.testzip()) is not None:
            raise BadMap(Reason.CORRUPT, f"{damaged!r} in the file does not match its checksum")
