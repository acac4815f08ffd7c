"""Find where a YOLO dataset has its images, labels and class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from labelmill.schemas.errors import BadInput

_YAML_BYTES_MAX = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloLayout:
    """The folders of a split's images and labels, the class names by number if there are any, and their source."""

    images: Path
    labels: Path
    names: Mapping[int, str] | None
    source: str


def find_yolo(source: str, split: str, names: str | None) -> YoloLayout:
    """Find a split by data.yaml, or in a folder with images/ and labels/; raise BadInput when it is not there."""
    place = Path(source)
    file = place if place.is_file() else place / "data.yaml"
    given = _read_names(Path(names)) if names else None
    if file.is_file():
        facts = _read_yaml(file)
        images = _find_split(file, facts, split)
        return YoloLayout(
            images=images, labels=_labels_of(images), names=given or _take_names(file, facts), source=file.name
        )
    images = place / "images"
    if not images.is_dir():
        raise BadInput(f"source: {place}: expected a data.yaml, or a folder with images/ and labels/")
    images = images / split if (images / split).is_dir() else images
    return YoloLayout(images=images, labels=_labels_of(images), names=given, source="YOLO labels")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _YAML_BYTES_MAX:
            raise BadInput(f"source: {file}: longer than {_YAML_BYTES_MAX} bytes; expected YOLO's data.yaml")
        facts = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"source: {file}: not a YAML file that can be read: {str(error).splitlines()[0]}") from error
    if not isinstance(facts, dict):
        raise BadInput(f"source: {file}: expected the keys train, val and names, got {type(facts).__name__}")
    return facts


def _find_split(file: Path, facts: Mapping[str, Any], split: str) -> Path:
    named = facts.get(split)
    if not isinstance(named, str):
        known = ", ".join(str(key) for key, value in facts.items() if isinstance(value, str) and key != "path")
        raise BadInput(
            f"split: {file} names no folder of images as {split!r}: it has {known or 'none'}; lists of folders and "
            "text files of paths are not read"
        )
    root = facts.get("path") or "."
    roots = [file.parent / str(root), file.parent]
    # Roboflow writes ../train/images for what lies beside the yaml.
    candidates = [*(root / named for root in roots), file.parent / named.removeprefix("../")]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise BadInput(f"source: {file}: no folder {candidates[0]}, which it names as {split!r}")


def _labels_of(images: Path) -> Path:
    """Return the folder beside the images: the last `images` in the path becomes `labels`, if that is there."""
    parts = list(images.parts)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == "images":
            labels = Path(*parts[:place], "labels", *parts[place + 1 :])
            return labels if labels.is_dir() else images
    return images


def _take_names(file: Path, facts: Mapping[str, Any]) -> dict[int, str] | None:
    names = facts.get("names")
    if names is None:
        return None
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    found = {int(number): str(name) for number, name in pairs if _is_named(number, name)}
    if not found:
        raise BadInput(f"source: {file}: names: expected a list of class names, or numbers with names")
    return found


def _is_named(number: object, name: object) -> bool:
    return str(number).isdecimal() if isinstance(number, int | str) and isinstance(name, str | int | float) else False


def _read_names(file: Path) -> dict[int, str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"names: {file}: {error}") from error
    found = {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    if not found:
        raise BadInput(f"names: {file} is empty; expected one class name a line")
    return found
