"""The package itself: its links, and what importing it costs."""

import os
import subprocess
import sys
from pathlib import Path

import labelmill

PACKAGE = Path(labelmill.__file__).parent


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_import_of_a_copy_whose_links_are_text_files_says_so(tmp_path):
    """As git leaves links where the file system or its settings have none."""
    (tmp_path / "labelmill").mkdir()
    (tmp_path / "labelmill" / "__init__.py").write_text((PACKAGE / "__init__.py").read_text())
    for name in ("flows", "tasks", "schemas", "models"):
        (tmp_path / "labelmill" / name).write_text(f"../../{name}")
    done = run_python("import labelmill", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "core.symlinks=true" in done.stderr


def test_import_loads_neither_torch_nor_prefect_nor_duckdb():
    done = run_python("import sys, labelmill, labelmill.cli; print({'torch', 'prefect', 'duckdb'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_package_offers_its_public_names():
    assert {labelmill.open_store.__name__, labelmill.LabelMaps.__name__} == {"open_store", "LabelMaps"}
    assert labelmill.__version__
