"""The base job template: what a deployment asks for is in the job that the Kubernetes worker would submit."""

import copy
import json
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import yaml

IMAGE = "registry.example.org/labelmill:0.1.0"
KUBERNETES_VERSION = "1.34"


@pytest.fixture(scope="module")
def template(root):
    loaded = json.loads((root / "deploy" / "kubernetes" / "base-job-template.json").read_text())
    loaded["variables"]["properties"]["image"]["default"] = IMAGE
    return loaded


@pytest.fixture(scope="module")
def schedule(server, template):
    """Schedule a run of a deployment with job variables in a pool with our template; return the run's id."""
    server.call("POST", "/work_pools/", {"name": "cluster", "type": "kubernetes", "base_job_template": template})
    flow = server.call("POST", "/flows/", {"name": "relabel"})

    def schedule(name, job_variables, run_variables=None):
        deployment = {"name": name, "flow_id": flow["id"], "work_pool_name": "cluster", "job_variables": job_variables}
        made = server.call("POST", "/deployments/", deployment)
        run = {"state": {"type": "SCHEDULED"}, "job_variables": run_variables or {}}
        return server.call("POST", f"/deployments/{made['id']}/create_flow_run", run)["id"]

    return schedule


CASES = {
    "default": ({}, None),
    "two": (
        {"gpu_count": 2, "cpu": "16", "memory": "64Gi", "shm_size": "8Gi",
         "store_claim": "fast", "images_claim": "pics",
         "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "namespace": "labels",
         "tolerations": [{"key": "team", "operator": "Equal", "value": "labels", "effect": "NoExecute"}],
         "env": {"OMP_NUM_THREADS": "1"}, "image_pull_secrets": [{"name": "registry"}]},
        None,
    ),
    "none": ({"gpu_count": 0}, None),
    "run": ({"gpu_count": 1}, {"gpu_count": 4}),
}  # fmt: skip


@pytest.fixture(scope="module")
def jobs(server, schedule, root):
    """The jobs of CASES by their names."""
    pytest.importorskip("prefect_kubernetes", reason="prefect-kubernetes is not installed: pip install '.[kubernetes]'")
    runs = [schedule(name, *variables) for name, variables in CASES.items()]
    script = Path(__file__).with_name("render_jobs.py")
    done = subprocess.run(
        [sys.executable, script, *runs], env=server.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


def pod(job):
    return job["spec"]["template"]["spec"]


def container(job):
    [only] = pod(job)["containers"]
    return only


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.parametrize(("case", "gpus"), [("default", 1), ("two", 2), ("none", 0), ("run", 4)])
def test_job_gpu_count_of_a_deployment_or_run_is_the_limit_of_gpus(jobs, case, gpus):
    resources = container(jobs[case])["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == gpus
    assert "nvidia.com/gpu" not in resources["requests"]  # Kubernetes takes the limit for the request


@pytest.mark.drill
@pytest.mark.prefect
def test_job_other_variables_of_a_deployment_are_in_the_pod(jobs):
    job = jobs["two"]
    assert job["metadata"]["namespace"] == "labels"
    assert pod(job)["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert [toleration["key"] for toleration in pod(job)["tolerations"]] == ["team"]
    assert pod(job)["imagePullSecrets"] == [{"name": "registry"}]
    assert container(job)["resources"]["requests"] == {"cpu": "16", "memory": "64Gi"}
    assert container(job)["resources"]["limits"]["memory"] == "64Gi"
    volumes = {volume["name"]: volume for volume in pod(job)["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes["store"]["persistentVolumeClaim"] == {"claimName": "fast"}
    assert volumes["images"]["persistentVolumeClaim"] == {"claimName": "pics", "readOnly": True}
    mounts = {mount["name"]: mount for mount in container(job)["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    assert (mounts["store"]["mountPath"], mounts["images"]["mountPath"]) == ("/data/store", "/data/imagenet")
    assert mounts["images"]["readOnly"] is True


@pytest.mark.drill
@pytest.mark.prefect
def test_job_runs_our_image_as_its_user_and_reports_to_the_server(jobs, server):
    job = jobs["default"]
    assert container(job)["image"] == IMAGE
    assert pod(job)["securityContext"]["runAsUser"] == 1000
    assert pod(job)["automountServiceAccountToken"] is False
    environment = {variable["name"]: variable["value"] for variable in container(job)["env"]}
    assert environment["PREFECT_API_URL"] == server.url
    assert container(job)["args"][0] == "prefect"
    two = {variable["name"]: variable["value"] for variable in container(jobs["two"])["env"]}
    assert two["OMP_NUM_THREADS"] == "1"
    assert environment["PREFECT_HOME"] == two["PREFECT_HOME"] == "/home/labelmill/.prefect"  # not the worker's


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.parametrize("case", CASES)
def test_job_fits_the_schema_of_kubernetes(jobs, case):
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    job = copy.deepcopy(jobs[case])
    for misplaced in ("parallelism", "completions"):  # Prefect demands them here; the API server warns and drops them
        assert pod(job).pop(misplaced) == 1
    validator.validate(job, KUBERNETES_VERSION, strict=True)
    pod(job)["containers"][0]["gpus"] = 1
    with pytest.raises(validator.ValidationError):
        validator.validate(job, KUBERNETES_VERSION, strict=True)


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.parametrize(
    "variables", [{"gpu_count": -1}, {"gpu_count": "two"}, {"memory": "lots"}], ids=["negative", "word", "no-quantity"]
)
def test_job_variables_that_make_no_sense_are_refused_at_deployment(schedule, variables):
    with pytest.raises(urllib.error.HTTPError) as refused:
        schedule("nonsense", variables)
    assert refused.value.code in (409, 422)
    refused.value.close()


def test_template_every_placeholder_is_a_variable_and_every_variable_is_used(template):
    text = json.dumps(template["job_configuration"])
    used = {part.split("}}")[0].strip() for part in text.split("{{")[1:]}
    assert used == set(template["variables"]["properties"])


def test_bootstrap_job_fits_the_schema_and_takes_the_password_from_the_secret(root):
    job = yaml.safe_load((root / "deploy" / "kubernetes" / "bootstrap-job.yaml").read_text())
    only = container(job)
    values = {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in only["env"]}
    assert values["PREFECT_API_AUTH_STRING"] == {"secretKeyRef": {"name": "prefect-auth", "key": "auth-string"}}
    assert f"--image={only['image']}" in only["args"]
    assert (root / only["args"][1]).is_file()
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validator.validate(job, KUBERNETES_VERSION, strict=True)
