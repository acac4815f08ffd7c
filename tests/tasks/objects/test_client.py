"""Requests to an object store that is slow, throttles, fails, refuses, or is not there."""

import builtins
import socket

import pytest

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks.objects import client, filesystem
from labelmill.tasks.objects.client import create_object, find_object, get_object, list_objects, open_object, put_object
from labelmill.tasks.objects.failure import explain_failure

ACTIONS = {
    "read": get_object,
    "read range": lambda url: get_object(url, end=3),
    "write": lambda url: put_object(url, b"new"),
    "create": lambda url: create_object(f"{url}2", b"new"),
    "head": find_object,
    "list": list_objects,
}


@pytest.fixture
def url(bucket):
    put_object(f"{bucket.url}/a b/ü.bin", b"content")
    return f"{bucket.url}/a b/ü.bin"


@pytest.fixture
def opened_anew(monkeypatch):
    """Let settings of the environment and of the module count: file systems are kept for a process."""
    monkeypatch.setattr(filesystem, "_opened", {})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", [500, 503])
def test_requests_that_fail_once_are_repeated(bucket, url, action, status):
    bucket.faults({"status": status, "times": 1})
    with bucket.logged() as requests:
        ACTIONS[action](url)
    assert len(requests) >= 2


@pytest.mark.parametrize("action", ACTIONS)
def test_requests_that_go_on_failing_end_in_one_line_with_the_object(bucket, url, action):
    bucket.faults({"status": 503})
    with bucket.logged() as requests, pytest.raises(WorkFailed) as raised:
        ACTIONS[action](url)
    assert str(raised.value).startswith(url)
    assert "gave up: Please reduce your request rate" in str(raised.value) or action in {"head", "read"}
    assert "\n" not in str(raised.value)
    assert 2 <= len(requests) <= 8


def test_get_object_slow_answers_end_after_the_read_timeout(bucket, url, monkeypatch, opened_anew):
    monkeypatch.setattr(filesystem, "READ_TIMEOUT_S", 0.2)
    bucket.faults({"method": "GET", "delay_s": 1.0})
    with pytest.raises(WorkFailed, match=rf"^{url}: gave up: .*[Tt]imeout"):
        get_object(url)
    bucket.faults({"method": "GET", "delay_s": 1.0, "times": 1})
    assert get_object(url) == b"content"


def test_get_object_with_all_its_repetitions_is_bounded(bucket, url, monkeypatch):
    bucket.faults({"method": "GET", "delay_s": 3.0})
    monkeypatch.setattr(client._call, "__kwdefaults__", {"timeout_s": 0.3})
    with pytest.raises(WorkFailed, match=rf"^{url}: gave up: "):
        get_object(url)


def test_get_object_no_server_is_one_line(bucket, url, monkeypatch, opened_anew):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    with pytest.raises(WorkFailed, match=f"^{url}: gave up: .*127.0.0.1"):
        get_object(url)


def test_explain_failure_does_not_repeat_a_password():
    explained = explain_failure(RuntimeError("cannot reach https://user:not-to-be-seen@host/x\nnor that"), "s3://b/x")
    assert str(explained).startswith("s3://b/x: gave up: cannot reach https://host/x nor that")


def test_get_object_no_permission_is_told(bucket, url):
    bucket.faults({"status": 403})
    with pytest.raises(PermissionError, match="No permission") as raised:
        get_object(url)
    assert raised.value.filename == url


def test_get_object_without_credentials_says_where_they_come_from(url, monkeypatch, opened_anew):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BadInput, match="no credentials; give them by the environment"):
        get_object(url)


@pytest.mark.parametrize("end", [None, 1, 3, 7, 8, 100])
def test_get_object_returns_what_is_there(bucket, url, end):
    assert get_object(url, end=end) == b"content"[:end]
    put_object(f"{bucket.url}/empty", b"")
    assert get_object(f"{bucket.url}/empty", end=end) == b""
    with pytest.raises(FileNotFoundError, match="No such object"):
        get_object(f"{bucket.url}/none", end=end)


def test_get_object_large_is_whole(bucket):
    data = bytes(range(256)) * 4096 * 60  # beyond what s3fs takes in one request
    put_object(f"{bucket.url}/large", data)
    assert get_object(f"{bucket.url}/large") == data
    with open_object(f"{bucket.url}/large") as stream:
        stream.seek(-5, 2)
        assert stream.read() == data[-5:]


def test_list_objects_has_sizes_and_no_folder_marks(bucket, url):
    for key, data in (("a b/", b""), ("a b/c/", b""), ("a b/c/x", b"12"), ("a bc", b""), ("a b//x", b"1")):
        bucket.s3().call_s3("put_object", Bucket=bucket.name, Key=key, Body=data)
    found = list_objects(f"{bucket.url}/a b")
    assert [(facts.path, facts.size) for facts in found] == [("/x", 1), ("c/x", 2), ("ü.bin", 7)]
    assert list_objects(f"{bucket.url}/a b", prefix="c/") == found[1:2]
    assert list_objects(f"{bucket.url}/none") == list_objects(f"{bucket.url}/a b", prefix="none/") == []


@pytest.mark.parametrize(("scheme", "package", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")])
def test_open_filesystem_missing_package_names_the_extra(monkeypatch, opened_anew, scheme, package, extra):
    def missing(name, *given, **options):
        raise ImportError(name)

    monkeypatch.setattr(filesystem, "import_module", missing)
    with pytest.raises(BadInput) as raised:
        get_object(f"{scheme}://bucket/x")
    assert str(raised.value) == f"{scheme}:// needs {package}: pip install 'labelmill[{extra}]'"


def test_import_labelmill_store_needs_no_package_of_object_stores(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *given, **options):
        assert name.partition(".")[0] not in {"s3fs", "gcsfs", "botocore", "aiohttp"}
        return real(name, *given, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    from labelmill.tasks.store import open_store

    assert open_store(tmp_path).tables() == []
