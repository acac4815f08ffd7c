"""What `make up` and `make down` say of runs and processes, asked of an API that answers what a test wants."""

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

NOBODY = 2**22 + 1
"""A process id that Linux and macOS never give."""


@pytest.fixture
def deploy(root, monkeypatch):
    """The folder deploy/ to import from."""
    monkeypatch.syspath_prepend(str(root / "deploy"))


@pytest.fixture
def api():
    """An API with one run in work; `workers` and `process` may be set, `posted` is what was sent."""

    class Handler(BaseHTTPRequestHandler):
        workers, process, posted, headers_seen = [], str(NOBODY), {}, []

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Handler.posted[self.path] = body
            Handler.headers_seen.append(dict(self.headers))
            run = {"id": "1", "name": "relabel imagenet", "infrastructure_pid": Handler.process}
            answer = {"/flow_runs/filter": [run], "/work_pools/gpu/workers/filter": Handler.workers}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer.get(self.path, {})).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}"
    yield Handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("workers", [[], [("mine", "ONLINE")], [("other", "OFFLINE")]], ids=["none", "mine", "away"])
def test_end_zombies_a_run_without_a_process_is_marked_crashed(deploy, api, workers):
    from left_runs import end_zombies

    api.workers = [{"name": name, "status": status} for name, status in workers]
    assert end_zombies(api.url, "mine") == [
        "ended: run relabel imagenet, whose worker is gone; the same run started again goes on"
    ]
    assert api.posted["/flow_runs/1/set_state"]["state"]["type"] == "CRASHED"


def test_end_zombies_a_run_that_may_be_another_machines_is_left_alone(deploy, api):
    from left_runs import end_zombies

    api.workers = [{"name": "gpu-7", "status": "ONLINE"}, {"name": "mine", "status": "OFFLINE"}]
    assert end_zombies(api.url, "mine") == ["not looked after: runs in work, which may be those of gpu-7"]
    assert "/flow_runs/1/set_state" not in api.posted


def test_find_orphans_a_stranger_with_the_number_of_a_run_is_none(deploy, api):
    from left_runs import find_orphans

    stranger = subprocess.Popen([sys.executable, "-c", "input()", "prefect"], stdin=subprocess.PIPE)
    try:
        api.process = str(stranger.pid)
        assert find_orphans(api.url) == []
    finally:
        stranger.communicate(b"\n")


def test_find_orphans_a_run_that_lives_is_found_and_the_api_gets_the_credentials(deploy, api, monkeypatch):
    from left_runs import find_orphans

    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "labelmill:pw")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    run = subprocess.Popen([sys.executable, "-c", "input()", "prefect.engine"], stdin=subprocess.PIPE)
    try:
        api.process = f"somehost:{run.pid}"
        assert find_orphans(api.url) == [run.pid]
    finally:
        run.communicate(b"\n")
    assert api.headers_seen[-1]["Authorization"] == "Basic bGFiZWxtaWxsOnB3"


def run_local(root, folder, *words):
    done = subprocess.run(
        [sys.executable, root / "deploy" / "local.py", *words, "--folder", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_local_down_without_anything_running_says_so_and_leaves_a_file_of_the_user(root, tmp_path):
    settings = tmp_path / "prefect.toml"
    settings.write_text("[api]\n")
    assert run_local(root, tmp_path, "down") == (0, "worker: not running\nserver: not running\n")
    assert settings.exists()


def test_local_down_a_stranger_with_the_number_of_the_worker_lives_on(root, tmp_path):
    stranger = subprocess.Popen([sys.executable, "-c", "input()", "/home/me/prefect/x"], stdin=subprocess.PIPE)
    try:
        (tmp_path / ".labelmill").mkdir()
        (tmp_path / ".labelmill" / "worker.pid").write_text(str(stranger.pid))
        assert run_local(root, tmp_path, "down") == (0, "worker: not running\nserver: not running\n")
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


def test_local_up_with_another_port_than_the_running_server_s_is_refused_with_its_address(root, tmp_path):
    server = subprocess.Popen([sys.executable, "-c", "input()", "prefect server start"], stdin=subprocess.PIPE)
    try:
        (tmp_path / ".labelmill").mkdir()
        (tmp_path / ".labelmill" / "server.pid").write_text(str(server.pid))
        url = "http://127.0.0.1:4211/api"
        (tmp_path / "prefect.toml").write_text(f'# written by make up, removed by make down\n[api]\nurl = "{url}"\n')
        code, said = run_local(root, tmp_path, "up", "--port", "4300")
        assert (code, said.startswith(f"a server of this checkout runs at {url}; ")) == (1, True)
    finally:
        server.communicate(b"\n")


def test_local_up_after_its_server_died_takes_the_port_of_before_where_worker_and_commands_look(root, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        (tmp_path / "prefect.toml").write_text(f'# written by make up, removed by make down\n[api]\nurl = "{url}"\n')
        code, said = run_local(root, tmp_path, "up")
    assert (code, said.startswith(f"port {port} is taken")) == (1, True)


def test_local_up_in_a_folder_that_cannot_be_written_says_so_in_one_line(root, tmp_path):
    (tmp_path / ".labelmill").write_text("a file in its place")
    code, said = run_local(root, tmp_path, "up")
    assert code == 1
    assert said.startswith(f"{tmp_path / '.labelmill'}: cannot be made: ")
    assert said.count("\n") == 1
