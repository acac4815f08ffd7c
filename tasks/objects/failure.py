"""Say in one line what an object store's library raised, without a secret in it."""

from __future__ import annotations

import errno
import re

from labelmill.schemas.errors import BadInput, LabelmillError, WorkFailed

_WORDS_MAX = 300

_CREDENTIALS = re.compile(r"//[^/@\s]*@")

_CODES = {
    "404": "missing",
    "NoSuchKey": "missing",
    "NoSuchBucket": "no bucket",
    "412": "exists",
    "PreconditionFailed": "exists",
    "401": "denied",
    "403": "denied",
    "409": "conflict",
    "ConditionalRequestConflict": "conflict",
    "OperationAborted": "conflict",
    "416": "behind the end",
    "InvalidRange": "behind the end",
}
"""What the back ends' codes mean: s3fs and gcsfs give the same answer different exceptions."""

_CLASSES = {
    "NoCredentialsError": "no credentials",
    "PartialCredentialsError": "no credentials",
    "DefaultCredentialsError": "no credentials",
}


class Conflict(WorkFailed):
    """Another writer of the same object was at work: to be tried again."""


class RangeBehindEnd(WorkFailed):
    """A read began behind the last byte of an object."""


def explain_failure(error: BaseException, url: str) -> Exception:
    """Return what to raise for an exception of s3fs, gcsfs or what lies below them; the text names the object.

    FileNotFoundError, FileExistsError and PermissionError mean what they say. BadInput: no such bucket, no
    credentials. WorkFailed: all else, after the library's retries.
    """
    if isinstance(error, LabelmillError):
        return error
    words = _words(error)
    match _meaning(error, words):
        case "missing":
            explained: Exception = FileNotFoundError(errno.ENOENT, "No such object", url)
        case "exists":
            explained = FileExistsError(errno.EEXIST, "Object exists", url)
        case "denied":
            explained = PermissionError(errno.EACCES, f"No permission: {words}", url)
        case "no bucket":
            explained = BadInput(f"{url}: no such bucket")
        case "no credentials":
            explained = BadInput(
                f"{url}: no credentials; give them by the environment, a profile or the machine's role"
            )
        case "conflict":
            explained = Conflict(f"{url}: {words}")
        case "behind the end":
            explained = RangeBehindEnd(f"{url}: {words}")
        case _:
            explained = WorkFailed(f"{url}: gave up: {words}; what was finished is kept, run again")
    return explained


def _meaning(error: BaseException, words: str) -> str:
    if found := _CODES.get(_code(error)) or _CLASSES.get(type(error).__name__):
        return found
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, FileExistsError):
        return "exists"
    return "denied" if isinstance(error, PermissionError) or words.startswith("Forbidden") else ""


def _code(error: BaseException) -> str:
    """Return the error code of the answer, if there was one; s3fs hangs it on the cause."""
    for one in (error, error.__cause__):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        if getattr(one, "code", None):
            return str(getattr(one, "code", ""))
    return ""


def _words(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error)  # without the number that s3fs makes up
    text = " ".join(str(said).split()) or type(error).__name__
    return _CREDENTIALS.sub("//", text)[:_WORDS_MAX]
