"""Open fsspec's file system of an object store, with credentials found in the standard ways."""

from __future__ import annotations

import logging
import os
import threading
from importlib import import_module
from typing import Any

from labelmill.schemas.errors import BadInput

CONNECT_TIMEOUT_S = 10

READ_TIMEOUT_S = 60
"""Silence for so long ends an attempt; an object store answers in well under a second."""

ATTEMPTS = 6
"""Of a request that is throttled, fails on the server's side or gets no answer; AWS_MAX_ATTEMPTS takes its place."""

CONNECTIONS = 64
"""At once: many threads read images."""

_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs.core", "gcs")}

_opened: dict[tuple[str, int], Any] = {}
_lock = threading.Lock()


def open_filesystem(scheme: str) -> Any:  # noqa: ANN401 - s3fs and gcsfs have no types
    """Return this process's file system for `s3` or `gs`; raise BadInput when its package is not installed."""
    with _lock:
        key = (scheme, os.getpid())  # a forked process cannot use its parent's
        if key not in _opened:
            _opened[key] = _OPENERS[scheme](_import(scheme))
        return _opened[key]


def _import(scheme: str) -> Any:  # noqa: ANN401 - as above
    module, extra = _EXTRAS[scheme]
    try:
        return import_module(module)
    except ImportError as error:
        raise BadInput(f"{scheme}:// needs {module.partition('.')[0]}: pip install 'labelmill[{extra}]'") from error


def _open_s3(s3fs: Any) -> Any:  # noqa: ANN401 - as above
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_pool_connections": CONNECTIONS,
    }
    if not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys():
        config["retries"] = {"mode": "standard", "total_max_attempts": ATTEMPTS}  # exponential backoff with jitter
    opened = s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
    opened.retries = 2  # its own, around botocore's: for an answer whose body is cut
    return opened


def _open_gs(gcsfs: Any) -> Any:  # noqa: ANN401 - as above
    from aiohttp import ClientTimeout

    # It logs failures with tracebacks; they are raised too, and told in one line.
    logging.getLogger("gcsfs").addFilter(_tells_no_traceback)
    # gcsfs' own retries: 6 attempts, up to 32 s apart. Its `cache` and `browser` logins are not asked.
    token = "anon" if os.environ.get("STORAGE_EMULATOR_HOST") else "google_default"
    return gcsfs.GCSFileSystem(
        token=token,
        consistency="md5",
        requests_timeout=ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _tells_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


_OPENERS = {"s3": _open_s3, "gs": _open_gs}
