"""The bootstrap on a real server: twice leaves one of each, bad states are told in a line."""

import pytest
import yaml

from labelmill.flows.registry import FLOWS

pytestmark = pytest.mark.prefect

ROOT_NAME = "set_working_directory"


def deployments(server):
    found = server.call("POST", "/deployments/filter", {})
    return {deployment["name"]: deployment for deployment in found}, len(found)


def test_bootstrap_twice_from_anywhere_leaves_one_of_each(server, tmp_path, root):
    first = server.run("bootstrap.py", "--pool-limit", 3, cwd=tmp_path)
    assert first.splitlines()[0] == "created: work pool gpu (process)"
    before, _ = deployments(server)
    second = server.run("bootstrap.py", cwd=tmp_path)
    assert second.splitlines()[0] == "unchanged: work pool gpu (process)"
    assert second.splitlines()[-2] == "unchanged: labelmill: end zombie runs"

    [pool] = server.call("POST", "/work_pools/filter", {})
    assert (pool["name"], pool["type"], pool["concurrency_limit"]) == ("gpu", "process", 3)
    assert pool["base_job_template"]["job_configuration"]["command"] == "{{ command }}"
    after, count = deployments(server)
    wanted = yaml.safe_load((root / "deploy" / "prefect.yaml").read_text())["deployments"]
    assert sorted(after) == sorted(deployment["name"] for deployment in wanted)
    assert count == len(wanted) >= len(FLOWS)
    assert {name: deployment["id"] for name, deployment in after.items()} == {
        name: deployment["id"] for name, deployment in before.items()
    }
    folders = {
        step[f"prefect.deployments.steps.{ROOT_NAME}"]["directory"] for d in after.values() for step in d["pull_steps"]
    }
    assert folders == {str(root)}
    assert len(server.call("POST", "/automations/filter", {})) == 1


def test_bootstrap_a_pool_of_another_type_is_refused_and_named(server):
    if not server.call("POST", "/work_pools/filter", {}):
        server.call("POST", "/work_pools/", {"name": "gpu", "type": "process"})
    told = server.run("bootstrap.py", "--pool-type", "kubernetes", "--image", "labelmill:0.1.0", code=1)
    assert told.startswith("bootstrap: the work pool gpu is of type process, expected kubernetes: ")
    assert "Traceback" not in told


def test_bootstrap_no_server_in_time_is_told_in_one_line(server):
    server = type(server)(
        url=server.url, environment={**server.environment, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    )
    told = server.run("bootstrap.py", "--wait-s", 0, code=1)
    assert told.startswith("bootstrap: no answer from http://127.0.0.1:9/api in 0 s: ")
    assert "Traceback" not in told
