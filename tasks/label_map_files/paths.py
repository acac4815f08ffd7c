"""Where an image's map lies below a folder of map files."""

from __future__ import annotations

from pathlib import PurePosixPath

from labelmill.schemas.errors import BadInput

MAP_SUFFIX = ".pt"


def map_file_path(uri: str) -> str:
    """Return the path of an image's map file, relative to the folder: the image's own with another suffix.

    Raises BadInput for a uri that would lead out of the folder, or names nothing.
    """
    path = PurePosixPath(uri)
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in uri:
        raise BadInput(f"uri {uri!r}: expected a path below the folder, such as n01440764/n01440764_10026.JPEG")
    return str(path.with_suffix(MAP_SUFFIX))
