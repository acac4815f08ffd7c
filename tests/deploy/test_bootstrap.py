"""The bootstrap on a real server: twice leaves one of each, bad states are told in a line."""

import pytest
import yaml

from labelmill.flows.registry import FLOWS

pytestmark = [pytest.mark.prefect, pytest.mark.drill]


def deployments(server):
    """Return the deployments to our pool: other tests share the server."""
    return server.call("POST", "/deployments/filter", {"work_pools": {"name": {"any_": ["gpu"]}}})


def test_bootstrap_twice_from_anywhere_leaves_one_of_each(server, tmp_path, root):
    first = server.run("bootstrap.py", "--pool-limit", 3, cwd=tmp_path)
    assert first.splitlines()[0] == "created: work pool gpu (process)"
    before = deployments(server)
    second = server.run("bootstrap.py", cwd=tmp_path)
    assert second.splitlines()[0] == "unchanged: work pool gpu (process)"
    assert second.splitlines()[-2] == "unchanged: labelmill: end zombie runs"

    pool = server.call("GET", "/work_pools/gpu")
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 3)
    assert pool["base_job_template"]["job_configuration"]["command"] == "{{ command }}"
    after = deployments(server)
    assert {found["id"] for found in after} == {found["id"] for found in before}
    wanted = yaml.safe_load((root / "deploy" / "prefect.yaml").read_text())["deployments"]
    assert sorted(found["name"] for found in after) == sorted(deployment["name"] for deployment in wanted)
    assert len(wanted) >= len(FLOWS)
    steps = [step for found in after for step in found["pull_steps"]]
    folders = {step["prefect.deployments.steps.set_working_directory"]["directory"] for step in steps}
    assert folders == {str(root)}
    names = [automation["name"] for automation in server.call("POST", "/automations/filter", {})]
    assert names.count("labelmill: end zombie runs") == 1


def test_bootstrap_again_keeps_what_an_operator_paused_resumed_and_scheduled(server):
    def read(name):
        return server.call("GET", f"/deployments/name/{name}")

    def schedules(name):
        return sorted(
            (made["slug"] or "", made["active"], made["schedule"]["cron"]) for made in read(name)["schedules"]
        )

    server.run("bootstrap.py")
    pipeline, relabel = "imagenet-pipeline/imagenet-pipeline", "relabel/relabel-imagenet"
    assert schedules(pipeline) == [("nightly", False, "0 2 * * *")]
    found = read(pipeline)
    nightly = found["schedules"][0]["id"]
    server.call("PATCH", f"/deployments/{found['id']}/schedules/{nightly}", {"active": True})
    added = [{"schedule": {"cron": "0 5 * * *"}, "active": True, "parameters": {"store": "/data/other"}}]
    server.call("POST", f"/deployments/{found['id']}/schedules", added)
    server.call("POST", f"/deployments/{read(relabel)['id']}/pause_deployment")
    assert "kept: pauses and schedules of 2 deployments" in server.run("bootstrap.py")
    assert schedules(pipeline) == [("", True, "0 5 * * *"), ("nightly", True, "0 2 * * *")]
    assert {"store": "/data/other"} in [made["parameters"] for made in read(pipeline)["schedules"]]
    assert (read(pipeline)["paused"], read(relabel)["paused"]) == (False, True)


def test_bootstrap_a_pool_of_another_type_is_refused_and_named(server):
    if not server.call("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": ["gpu"]}}}):
        server.call("POST", "/work_pools/", {"name": "gpu", "type": "process"})
    told = server.run("bootstrap.py", "--pool-type", "kubernetes", "--image", "labelmill:0.1.0", code=1)
    assert told.startswith("bootstrap: the work pool gpu is of type process, expected kubernetes: ")
    assert "Traceback" not in told


def test_bootstrap_no_server_in_time_is_told_in_one_line(server):
    told = server.run("bootstrap.py", "--wait-s", 0, code=1, changes={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert told.startswith("bootstrap: no answer from http://127.0.0.1:9/api in 0 s: ")
    assert "Traceback" not in told
