"""The rows of LSUN's values from their keys and lengths alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.images import IMAGES_SCHEMA, Reason, Status
from labelmill.schemas.members import LmdbValue, name_member
from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.containers.lmdb_values import list_lmdb_in_blocks
from labelmill.tasks.ingest.list_files import as_text
from labelmill.tasks.lsun.environments import STRANGE_KEY, LsunEnvironment, is_lsun_key, refuse_keys
from labelmill.tasks.stop import check_stop

_KEYS_AT_ONCE = 65_536
"""Few enough to stay in memory as digits, enough that the work on arrays counts."""

_KEY_BYTES = 40
_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)

_AS_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint16)
"""The two digits of each byte, in the order of memory."""


def list_rows(
    environments: Sequence[LsunEnvironment], labels: Sequence[int | None], parameters: IngestLsunParameters
) -> Iterator[pa.Table]:
    """Yield the rows (IMAGES_SCHEMA) of the values of some environments; `labels` are the class ids of each one's.

    No value is read: width, height, format, mode and sha256 are null, and `done` says no more than that there is a
    value of that length. Raises BadInput for a damaged environment, or one without LSUN's keys.
    """
    for environment, label in zip(environments, labels, strict=True):
        count, strange = 0, []
        for keys, lengths in list_lmdb_in_blocks(environment.path, _KEYS_AT_ONCE):
            check_stop()
            count += len(keys)
            good, good_lengths, odd = _sort_out(keys, lengths)
            strange += [key for key, _ in odd]
            if len(good):
                yield _make_rows(environment, label, parameters, *_name(environment, good), good_lengths)
            if odd:
                yield _make_odd_rows(environment, label, parameters, odd)
        refuse_keys(environment, count, strange)


def _sort_out(
    keys: Sequence[bytes], lengths: Sequence[int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[tuple[bytes, int]]]:
    """Return LSUN's keys (N, 40), the lengths of their values, and the other keys with theirs."""
    joined = b"".join(keys)
    if len(joined) == _KEY_BYTES * len(keys):
        digits = np.frombuffer(joined, np.uint8).reshape(len(keys), _KEY_BYTES)
        if set(map(len, keys)) == {_KEY_BYTES} and not joined.translate(None, _HEX_DIGITS.tobytes()):
            return digits, np.array(lengths, np.int64), []
    pairs = list(zip(keys, lengths, strict=True))
    good = [pair for pair in pairs if is_lsun_key(pair[0])]
    digits = np.frombuffer(b"".join(key for key, _ in good), np.uint8).reshape(len(good), _KEY_BYTES)
    odd = [pair for pair in pairs if not is_lsun_key(pair[0])]
    return digits, np.array([length for _, length in good], np.int64), odd


def _name(environment: LsunEnvironment, keys: npt.NDArray[np.uint8]) -> tuple[pa.Array, pa.Array]:
    """Return the paths and uris of values under keys of 40 bytes."""
    digits = _AS_HEX[keys].view(np.uint8).reshape(len(keys), 2 * _KEY_BYTES)
    before = name_member(environment.name, LmdbValue(key=b""))
    return _texts(f"{environment.name}/", keys), _texts(before, digits)


def _texts(prefix: str, ends: npt.NDArray[np.uint8]) -> pa.Array:
    """Return strings that share a beginning; `ends` (N, W) holds the ASCII of the rest."""
    start = np.frombuffer(prefix.encode(), np.uint8)
    whole = np.empty((len(ends), len(start) + ends.shape[1]), np.uint8)
    whole[:, : len(start)] = start
    whole[:, len(start) :] = ends
    offsets = np.arange(len(ends) + 1, dtype=np.int32) * np.int32(whole.shape[1])
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(whole))


def _make_odd_rows(
    environment: LsunEnvironment,
    label: int | None,
    parameters: IngestLsunParameters,
    values: Sequence[tuple[bytes, int]],
) -> pa.Table:
    paths = [f"{environment.name}/{as_text(key.decode('utf-8', 'surrogateescape'))}" for key, _ in values]
    uris = [name_member(environment.name, LmdbValue(key=key)) for key, _ in values]
    lengths = np.array([length for _, length in values], np.int64)
    reasons = pa.repeat(pa.scalar(STRANGE_KEY[0].value), len(values))
    details = pa.repeat(pa.scalar(STRANGE_KEY[1]), len(values))
    rows = _make_rows(environment, label, parameters, pa.array(paths), pa.array(uris), lengths)
    return _reject(rows, reasons, details)


def _make_rows(
    environment: LsunEnvironment,
    label: int | None,
    parameters: IngestLsunParameters,
    paths: pa.Array,
    uris: pa.Array,
    lengths: npt.NDArray[np.int64],
) -> pa.Table:
    count = len(lengths)
    if parameters.id_prefix:
        paths = pc.binary_join_element_wise(parameters.id_prefix, paths, "")
    known = {
        "image_id": paths,
        "split": pa.repeat(pa.scalar(parameters.split), count),
        "uri": uris,
        "bytes": pa.array(lengths),
        "mtime_ns": pa.repeat(pa.scalar(environment.state.mtime_ns, pa.int64()), count),
        "label": pa.repeat(pa.scalar(label, pa.int32()), count),
        "status": pa.repeat(pa.scalar(Status.DONE.value), count),
    }
    columns = [known.get(field.name, pa.nulls(count, field.type)) for field in IMAGES_SCHEMA]
    rows = pa.table(columns, schema=IMAGES_SCHEMA)
    empty, large = lengths == 0, lengths > parameters.max_bytes
    if not (empty.any() or large.any()):
        return rows
    choices = pa.StructArray.from_arrays([pa.array(empty), pa.array(large)], names=["empty", "large"])
    reasons = pc.case_when(choices, Reason.EMPTY.value, Reason.TOO_MANY_BYTES.value)
    said = "the value has no bytes", f"more than {parameters.max_bytes} bytes"
    return _reject(rows, reasons, pc.case_when(choices, *said))


def _reject(rows: pa.Table, reasons: pa.Array, details: pa.Array) -> pa.Table:
    """Return rows with reasons, null for those that stay done."""
    status = pc.if_else(pc.is_null(reasons), Status.DONE.value, Status.REJECTED.value)
    for name, column in (("status", status), ("reason", reasons), ("detail", details)):
        place = IMAGES_SCHEMA.get_field_index(name)
        rows = rows.set_column(place, IMAGES_SCHEMA.field(place), column)
    return rows
