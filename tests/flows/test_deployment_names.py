"""Deployments by their own names alone: which command lines are meant, and what is said when there is no server."""

import ssl
import sys
import urllib.error
from types import SimpleNamespace

import anyio
import pytest

from labelmill.flows import deployment_names
from labelmill.flows.deployment_names import setup_environment


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["/venv/bin/prefect", "deployment", "run", "relabel-imagenet"], True),
        (["/venv/lib/prefect/__main__.py", "--no-prompt", "deployment", "run", "x"], True),
        (["/venv/bin/prefect", "deployment", "run", "--help"], False),
        (["/venv/bin/prefect", "deployment", "ls"], False),
        (["/venv/bin/labelmill", "run", "relabel", "--dataset", "deployment"], False),
        (["-c"], False),
    ],
)
def test_runs_a_deployment_only_for_that_command(arguments, meant):
    assert deployment_names._runs_a_deployment(arguments) is meant


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "no Prefect server is configured; `make up` starts one here"),
        ("http://127.0.0.1:9/api", "no Prefect server answers at http://127.0.0.1:9/api"),
    ],
)
def test_setup_environment_without_a_server_says_so_in_one_line(monkeypatch, capsys, url, said):
    monkeypatch.setattr(sys, "argv", ["prefect", "deployment", "run", "relabel-imagenet"])
    with pytest.raises(SystemExit) as ended:
        setup_environment(ctx=SimpleNamespace(api_url=url))
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith(f"labelmill: {said}")
    assert err.count("\n") == 1


def test_why_no_answer_a_certificate_that_only_prefect_knows_is_for_prefect_to_judge(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate in certificate chain"))

    monkeypatch.setattr(deployment_names.urllib.request, "urlopen", refuse)
    assert deployment_names._why_no_answer("https://prefect.example.org/api") is None


class Client:
    """Two deployments, of which two flows have one of the same name."""

    names = (("relabel", "nightly"), ("ingest", "nightly"), ("relabel", "relabel-imagenet"))

    async def read_deployments(self, *, limit, offset):
        return [SimpleNamespace(flow_id=flow, name=name) for flow, name in self.names[offset : offset + limit]]

    async def read_flow(self, flow_id):
        return SimpleNamespace(name=flow_id)


def resolve(name):
    async def by_full_name(client, full):
        if tuple(full.split("/")) not in client.names:
            raise ValueError(full)
        return full

    return anyio.run(deployment_names._with_short_names(by_full_name), Client(), name)


@pytest.mark.parametrize("name", ["relabel-imagenet", "relabel/relabel-imagenet"])
def test_read_deployment_by_name_takes_the_short_and_the_full_name(name):
    assert resolve(name) == "relabel/relabel-imagenet"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nightly", "which one? ingest/nightly, relabel/nightly"),
        ("relabel-imagnet", "no deployment 'relabel-imagnet'; there are: ingest/nightly, relabel/nightly, relabel/rel"),
        ("ingest/relabel-imagenet", "no deployment 'ingest/relabel-imagenet'; there are: "),
    ],
)
def test_read_deployment_by_name_that_is_none_or_several_lists_them(capsys, name, said):
    with pytest.raises(SystemExit):
        resolve(name)
    assert said in capsys.readouterr().err
