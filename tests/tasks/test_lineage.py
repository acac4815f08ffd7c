"""Lineage: what made a version, and nothing that is secret or differs for no reason."""

import json
import subprocess
from datetime import datetime
from importlib.metadata import version

import pytest

from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks import lineage


@pytest.fixture
def parameters():
    return RelabelParameters(store="s", dataset="imagenet", teacher="resnet18")


def test_make_lineage_digest_is_of_the_parameters_alone(parameters):
    first = lineage.make_lineage("relabel", parameters)
    again = lineage.make_lineage("relabel", parameters, inputs={"imagenet.images": 3}, teacher={"name": "x"})
    other = lineage.make_lineage("relabel", parameters.model_copy(update={"top_k": 4}))
    assert first.parameters_digest == again.parameters_digest != other.parameters_digest
    assert (again.inputs, again.teacher) == ({"imagenet.images": 3}, {"name": "x"})
    assert first.parameters["top_k"] == 5  # defaults too: they may change in a later release


def test_make_lineage_tells_software_time_and_host(parameters):
    made = lineage.make_lineage("relabel", parameters)
    assert made.software == {name: version(name) for name in lineage.RECORDED_PACKAGES}
    assert datetime.fromisoformat(made.time).tzinfo is not None
    assert made.host
    json.dumps(made.model_dump(mode="json"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout in whose tasks/ the code seems to lie; git's own settings of this machine do not count."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "lineage.py").write_text("")
    monkeypatch.setattr(lineage, "__file__", str(tmp_path / "tasks" / "lineage.py"))
    lineage.code_version.cache_clear()
    yield tmp_path
    lineage.code_version.cache_clear()


def git(folder, *arguments):
    named = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *named, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_code_version_of_an_installed_copy_is_the_release(checkout):
    assert lineage.code_version() == version("labelmill")


def test_code_version_of_a_checkout_without_a_commit_is_the_release(checkout):
    git(checkout, "init", "-q")
    assert lineage.code_version() == version("labelmill")


@pytest.mark.parametrize("changed", [False, True])
def test_code_version_of_a_checkout_names_the_commit_and_that_it_was_changed(checkout, changed):
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "one")
    if changed:
        (checkout / "tasks" / "lineage.py").write_text("# changed")
    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert lineage.code_version() == f"{version('labelmill')} {commit}{'+changes' if changed else ''}"
