"""The automations on a real server: created once, changed only on need, and they do what they promise."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from local_machine import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.drill]

ZOMBIES = "labelmill: end zombie runs"
ALERTS = "labelmill: alert on failed and crashed runs"
SHORTEST_WINDOW_S = 10
"""Prefect allows no less."""


@pytest.fixture
def clean_server(server):
    """The session's server without automations and notification blocks."""
    clean(server)
    yield server
    clean(server)


def clean(server):
    for automation in server.call("POST", "/automations/filter", {}):
        server.call("DELETE", f"/automations/{automation['id']}")
    for block in server.call("POST", "/block_documents/filter", {}):
        server.call("DELETE", f"/block_documents/{block['id']}")


def make_webhook(server, url, name="labelmill-alerts"):
    """Have a notification block that posts to `url`."""
    block_type = server.call("GET", "/block_types/slug/custom-webhook")
    schemas = server.call("POST", "/block_schemas/filter", {})
    schema = next(schema for schema in schemas if schema["block_type_id"] == block_type["id"])
    data = {"name": "test", "url": url, "json_data": {"subject": "{{subject}}", "body": "{{body}}"}}
    document = {"name": name, "data": data, "block_schema_id": schema["id"], "block_type_id": block_type["id"]}
    return server.call("POST", "/block_documents/", document)["id"]


def make_run(server, state):
    flow = server.call("POST", "/flows/", {"name": "drill"})
    body = {"flow_id": flow["id"], "state": {"type": state}}
    return server.call("POST", "/flow_runs/", body)["id"]


def send_heartbeat(server, run):
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
    }
    server.call("POST", "/events", [event])


def read_state(server, run):
    return server.call("GET", f"/flow_runs/{run}")["state"]


def test_automations_created_twice_are_there_once_and_untouched(clean_server):
    no_alerts = "no alerts: there is no block 'labelmill-alerts' yet, see docs/operations.md"
    assert clean_server.run("automations.py").splitlines() == [f"created: {ZOMBIES}", no_alerts]
    make_webhook(clean_server, "http://127.0.0.1:9/")
    assert clean_server.run("automations.py").splitlines() == [f"unchanged: {ZOMBIES}", f"created: {ALERTS}"]
    first = clean_server.call("POST", "/automations/filter", {})
    assert clean_server.run("automations.py").splitlines() == [f"unchanged: {ZOMBIES}", f"unchanged: {ALERTS}"]
    assert clean_server.call("POST", "/automations/filter", {}) == first
    assert sorted(automation["name"] for automation in first) == [ALERTS, ZOMBIES]


def test_automations_old_doubles_become_one_of_today_and_stay_paused(clean_server):
    trigger = {"type": "event", "posture": "Reactive", "expect": ["another"], "threshold": 1, "within": 0}
    old = {"name": ZOMBIES, "enabled": False, "trigger": trigger, "actions": [{"type": "do-nothing"}]}
    ids = [clean_server.call("POST", "/automations/", old)["id"] for _ in range(2)]
    assert f"updated: {ZOMBIES}" in clean_server.run("automations.py", "--zombie-window-s", 3600)
    [kept] = clean_server.call("POST", "/automations/filter", {})
    assert (kept["id"], kept["enabled"]) == (min(ids), False)
    assert (kept["trigger"]["posture"], kept["trigger"]["within"]) == ("Proactive", 3600.0)
    assert [action["type"] for action in kept["actions"]] == ["change-flow-run-state"]


def test_automations_without_a_server_refuse_in_one_line(server, tmp_path):
    nowhere = {name: value for name, value in server.environment.items() if name != "PREFECT_API_URL"}
    script = Path(__file__).parents[2] / "deploy" / "automations.py"
    environment = {**nowhere, "PREFECT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "automations: no Prefect server: set PREFECT_API_URL\n"


def test_zombie_automation_a_killed_run_crashes_and_living_ones_stay(clean_server, tmp_path):
    clean_server.run("automations.py", "--zombie-window-s", SHORTEST_WINDOW_S)
    told = tmp_path / "run"
    flow = Path(__file__).with_name("flow_that_hangs.py")
    process = subprocess.Popen(
        [sys.executable, flow, told], env=clean_server.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(told.exists, process)
        killed = told.read_text()
        beats = {"resource": {"id": [f"prefect.flow-run.{killed}"]}, "event": {"name": ["prefect.flow-run.heartbeat"]}}
        wait_until(lambda: clean_server.call("POST", "/events/filter", {"filter": beats})["events"], process)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert read_state(clean_server, killed)["type"] == "RUNNING"

    finished, living = make_run(clean_server, "RUNNING"), make_run(clean_server, "RUNNING")
    send_heartbeat(clean_server, finished)
    clean_server.call("POST", f"/flow_runs/{finished}/set_state", {"state": {"type": "COMPLETED"}})

    def has_crashed():
        send_heartbeat(clean_server, living)
        return read_state(clean_server, killed)["type"] == "CRASHED"

    wait_until(has_crashed)
    assert "No heartbeat for 10 s" in read_state(clean_server, killed)["message"]
    assert read_state(clean_server, living)["type"] == "RUNNING"
    assert read_state(clean_server, finished)["type"] == "COMPLETED"

    clean_server.call("POST", f"/flow_runs/{killed}/set_state", {"state": {"type": "COMPLETED"}})
    assert read_state(clean_server, killed)["type"] == "COMPLETED", "a run that was marked wrongly could not end"


def test_alert_automation_bad_ends_post_the_run_and_its_message(clean_server):
    posted = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    inbox = HTTPServer(("127.0.0.1", 0), Inbox)
    threading.Thread(target=inbox.serve_forever, daemon=True).start()
    runs = {state: make_run(clean_server, "RUNNING") for state in ("COMPLETED", "FAILED", "CRASHED")}
    try:
        make_webhook(clean_server, f"http://127.0.0.1:{inbox.server_port}/")
        clean_server.run("automations.py")
        for state, run in runs.items():
            ended = {"type": state, "message": f"{state}: no space left on device"}
            clean_server.call("POST", f"/flow_runs/{run}/set_state", {"state": ended})
        wait_until(lambda: len(posted) == 2)
    finally:
        inbox.shutdown()
        inbox.server_close()
    told = {message["subject"]: message["body"] for message in posted}
    for state in ("FAILED", "CRASHED"):
        name = clean_server.call("GET", f"/flow_runs/{runs[state]}")["name"]
        body = told[f"Labelmill: drill/{name} is {state.capitalize()}"]
        assert f"drill/{name}: {state}: no space left on device" in body
        assert runs[state] in body
