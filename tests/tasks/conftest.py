"""What the tests of tasks share."""

import os
import tempfile
from pathlib import Path

import pytest


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
