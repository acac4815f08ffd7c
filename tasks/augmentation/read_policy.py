"""Read a policy by its name or from a file."""

from __future__ import annotations

from pathlib import Path

import yaml

from labelmill.schemas.augmentation import Policy, make_policy
from labelmill.schemas.errors import BadInput
from labelmill.schemas.policy_presets import POLICY_FILES, find_preset

_FILE_BYTES_MAX = 2**20
"""Far more than any policy has."""


def read_policy(policy: str) -> Policy:
    """Return the policy of a preset's name, or of a YAML file, named after the file unless it says a name.

    Raises BadInput for an unknown name, with those that there are, and for a file that cannot be read or describes
    none, with each field that is wrong.
    """
    if not policy.endswith(POLICY_FILES):
        return find_preset(policy)
    path = Path(policy)
    try:
        with path.open("rb") as stream:
            data = stream.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadInput(f"policy: {policy}: {error.strerror}; expected a YAML file with operations") from error
    if len(data) > _FILE_BYTES_MAX:
        raise BadInput(f"policy: {policy}: more than {_FILE_BYTES_MAX} bytes, which is no policy")
    try:
        values = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadInput(f"policy: {policy}: no YAML: {str(error).splitlines()[0]}") from error
    if isinstance(values, list):
        values = {"operations": values}
    if isinstance(values, dict):
        values = {"name": _as_name(path.stem), **values}
    return make_policy(values, source=f"policy: {policy}")


def _as_name(stem: str) -> str:
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-") else "-" for letter in stem)
    return kept[:64] or "policy"
