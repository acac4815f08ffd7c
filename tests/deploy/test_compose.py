"""The compose file: its properties, that its settings are those of the example, and what Compose makes of it."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

NEEDED = {"POSTGRES_PASSWORD": "pg", "PREFECT_AUTH": "labelmill:pw"}


@pytest.fixture(scope="module")
def text(root):
    return (root / "deploy" / "compose.yaml").read_text()


@pytest.fixture(scope="module")
def services(text):
    return yaml.safe_load(text)["services"]


@pytest.fixture(scope="module")
def example(root):
    lines = (root / "deploy" / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_compose_secrets_have_no_value_in_the_repository(example, text, root):
    assert {name for name, value in example.items() if not value} == {*NEEDED, "HF_TOKEN"}
    defaults = {name: re.findall(rf"\$\{{{name}:?([-?])?", text) for name in NEEDED}
    assert defaults == {"POSTGRES_PASSWORD": ["-", ""], "PREFECT_AUTH": ["?", ""]}
    assert "${POSTGRES_PASSWORD:-}" in text
    assert ".env" in (root / "deploy" / ".gitignore").read_text().splitlines()


def test_compose_every_setting_is_in_the_example_and_every_one_there_is_used(example, text):
    read = set(re.findall(r"\$\{(\w+)", text))
    assert read == set(example) - {"COMPOSE_PROFILES"}


def test_compose_services_restart_and_rotate_their_logs(services):
    for name, service in services.items():
        assert service["restart"].startswith("on-failure" if name == "bootstrap" else "unless-stopped"), name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_compose_each_waits_for_what_it_needs(services):
    assert services["server"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert services["bootstrap"]["depends_on"]["server"]["condition"] == "service_healthy"
    needs = services["worker"]["depends_on"]["bootstrap"]
    assert needs == {"condition": "service_completed_successfully", "required": False}
    assert all("healthcheck" in services[name] for name in ("database", "server", "worker"))


def test_compose_worker_has_gpus_the_documented_folders_and_as_many_runs_as_set(services):
    worker = services["worker"]
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    folders = {volume["target"]: volume for volume in worker["volumes"] if isinstance(volume, dict)}
    assert folders.keys() == {"/data/store", "/data/imagenet"}
    assert folders["/data/imagenet"]["read_only"] is True
    assert all(volume["bind"] == {"create_host_path": False} for volume in folders.values())
    assert worker["command"][worker["command"].index("--limit") + 1] == "${LABELMILL_WORKER_RUNS:-1}"


def test_compose_only_the_server_listens_and_only_to_this_machine_by_default(services):
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "server": ["${PREFECT_BIND:-127.0.0.1:4200}:4200"]
    }


@pytest.fixture(scope="module")
def compose():
    """The command of Compose 2.20 or later: the plugin of docker, or the program by itself."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        said = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
        if said.returncode == 0 and tuple(map(int, re.findall(r"\d+", said.stdout)[:2])) >= (2, 20):
            return command
    return pytest.skip("no Docker Compose 2.20 or later")


@pytest.fixture
def render(compose, root, example, tmp_path):
    """Render the file with the example's settings and changes to them; return exit code, configuration, errors."""

    def render(**changes):
        settings = tmp_path / "settings"
        settings.write_text("".join(f"{name}={value}\n" for name, value in {**example, **changes}.items()))
        options = ["--file", str(root / "deploy" / "compose.yaml"), "--env-file", str(settings)]
        command = [*compose, *options, "config", "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False)
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    return render


def test_compose_rendered_for_one_machine_has_all_services_and_gpus(render, root):
    code, rendered, errors = render(**NEEDED, LABELMILL_GPUS="2")
    assert code == 0, errors
    assert rendered["services"].keys() == {"database", "server", "bootstrap", "worker"}
    assert rendered["services"]["server"]["build"]["context"] == str(root)
    environment = rendered["services"]["server"]["environment"]
    assert (
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://prefect:pg@database:5432/prefect"
    )
    [device] = rendered["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["count"] == 2


def test_compose_rendered_for_a_gpu_machine_has_only_the_worker_and_needs_no_database_password(render):
    address = "https://prefect.example.org/api"
    code, rendered, errors = render(PREFECT_AUTH="a:b", COMPOSE_PROFILES="worker", PREFECT_API_URL=address)
    assert code == 0, errors
    assert list(rendered["services"]) == ["worker"]
    assert rendered["services"]["worker"]["environment"]["PREFECT_API_URL"] == address


def test_compose_without_the_shared_secret_refuses_and_names_it(render):
    code, _, errors = render(POSTGRES_PASSWORD="pg")
    assert code != 0
    assert "PREFECT_AUTH" in errors
