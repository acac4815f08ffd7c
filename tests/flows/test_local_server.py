"""The server of one command: reached without the proxy of a company."""

import urllib.request

import pytest

from labelmill.flows.local_server import _go_past_proxies


@pytest.mark.parametrize("given", [{}, {"NO_PROXY": "corp.example"}, {"no_proxy": "corp.example"}], ids=str)
def test_go_past_proxies_this_machine_is_reached_directly_and_others_as_before(monkeypatch, given):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in {"http_proxy": "http://127.0.0.1:9", **given}.items():
        monkeypatch.setenv(name, value)
    assert not urllib.request.proxy_bypass("127.0.0.1:4200")
    _go_past_proxies()
    assert urllib.request.proxy_bypass("127.0.0.1:4200")
    assert bool(urllib.request.proxy_bypass("corp.example")) is bool(given)
    assert not urllib.request.proxy_bypass("huggingface.co")
