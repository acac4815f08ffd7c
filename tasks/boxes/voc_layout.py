"""Find where Pascal VOC has its annotations and images, and which of them a set names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labelmill.schemas.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class VocLayout:
    """The folders of the annotations and the images, and the names without suffix of a set, None for all."""

    annotations: Path
    images: Path
    stems: tuple[str, ...] | None


def find_voc(source: str, image_set: str | None) -> VocLayout:
    """Find VOC's folders and read its image set; raise BadInput when they are not there."""
    place = Path(source)
    annotations, images = place / "Annotations", place / "JPEGImages"
    for folder in (annotations, images):
        if not folder.is_dir():
            raise BadInput(f"source: no folder {folder}; expected VOC's folder with Annotations/ and JPEGImages/")
    stems = None if image_set is None else _read_set(place / "ImageSets" / "Main" / f"{image_set}.txt")
    return VocLayout(annotations=annotations, images=images, stems=stems)


def _read_set(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"image_set: {file}: {error}") from error
    # A class's own set, such as cat_train, has 1, 0 or -1 behind the name: all its images are named all the same.
    stems = tuple(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    if not stems:
        raise BadInput(f"image_set: {file} is empty; expected an image's name a line")
    return stems
