"""What the tests of tasks share."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from botocore.loaders import create_loader

from labelmill.tasks.objects import filesystem
from labelmill.tasks.objects.filesystem import open_filesystem

from .annotated_dataset import Dataset

S3_SERVER = str(Path(__file__).parents[1] / "s3_server.py")

SECRET = "not-to-be-seen"


@pytest.fixture
def dataset(tmp_path):
    """A store to ingest annotated images into, and to export from."""
    return Dataset(tmp_path)


@pytest.fixture
def ordinary_user_folder():
    """A folder in which permissions count: root, as in many containers, may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


class Bucket:
    """A bucket of an S3 server in a process of its own."""

    def __init__(self, endpoint, name):
        self.endpoint, self.name, self.url = endpoint, name, f"s3://{name}"

    def s3(self):
        return open_filesystem("s3")

    def upload(self, folder, prefix):
        """Copy a folder into the bucket; return its URL there."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.s3().pipe_file(f"{self.name}/{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.url}/{prefix}"

    def download(self, prefix, folder):
        """Copy what lies below a prefix into a folder."""
        for name in self.s3().find(f"{self.name}/{prefix}"):
            path = folder / name.removeprefix(f"{self.name}/{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.s3().cat_file(name))

    def keys(self, prefix):
        """The names of all objects below a prefix, relative to it."""
        return {name.removeprefix(f"{self.name}/{prefix}/") for name in self.s3().find(f"{self.name}/{prefix}")}

    def remove(self, key):
        self.s3().rm_file(f"{self.name}/{key}")

    def faults(self, *faults):
        data = json.dumps([{"times": 10**6, **fault} for fault in faults]).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/-/faults", data, method="PUT")).close()

    def log(self):
        """The requests served so far, each `METHOD /bucket/key?query`."""
        with urllib.request.urlopen(f"{self.endpoint}/-/log") as answer:
            return json.loads(answer.read())

    @contextmanager
    def logged(self):
        """Collect the requests of a block."""
        before, requests = len(self.log()), []
        yield requests
        requests += self.log()[before:]


@pytest.fixture(scope="session")
def s3_descriptions():
    """Let all clients of the session read botocore's descriptions of services once: most of the cost of a client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", cache(create_loader))
        yield


@pytest.fixture(scope="session")
def s3_server(s3_descriptions):
    """The endpoint of an S3 server."""
    server = subprocess.Popen([sys.executable, S3_SERVER], stdout=subprocess.PIPE, text=True)
    with server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """A new, empty bucket, with the environment that leads to it; an attempt that fails is repeated once."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    environment = {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server, "AWS_MAX_ATTEMPTS": "2", "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(filesystem, "_opened", {})  # what other tests opened has their environment
    bucket = Bucket(s3_server, f"bucket-{uuid.uuid4().hex}")
    bucket.s3().mkdir(bucket.name)
    yield bucket
    bucket.faults()
