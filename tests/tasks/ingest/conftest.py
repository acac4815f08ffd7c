"""What the tests of ingest share."""

import os
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image


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


@pytest.fixture(scope="session")
def jpeg():
    """A small whole JPEG."""
    buffer = BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.fixture
def write_tree(tmp_path, jpeg):
    """Write files below a folder from their paths; each has the same picture unless the path maps to bytes."""

    def write(*paths, **contents):
        for path in (*paths, *contents):
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(contents.get(path, jpeg))
        return tmp_path

    return write
